"""Commands act on a gateway that runs, from its next request on: raised, switched off, allowed."""

import asyncio
import contextlib
import io
import re
import shlex
from decimal import Decimal

import httpx
import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.governance.policy import Budget, Owner, Rules
from opencode_gate.ledger.sqlite import open_store
from tests.support.gateway import TOKEN, running_gateway
from tests.support.priced_provider import priced_provider
from tests.support.rules import give


def typed(line: str) -> None:
    """A command in another terminal."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert main(shlex.split(line)) == 0, said.getvalue()


async def ask(client: httpx.AsyncClient, url: str, *, max_tokens: int) -> httpx.Response:
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": max_tokens,
    }
    return await client.post(url, json=asked, headers={"authorization": f"Bearer {TOKEN}"})


async def test_a_session_goes_on_when_its_budget_is_raised_as_its_refusal_says() -> None:
    open_store(paths().ledger_file).close()
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            store = open_store(paths().ledger_file)
            store.add_session(gateway.session)
            store.close()
            owner = Owner("session", gateway.session.id)
            budget = Budget(window="session", usd=Decimal("0.03"))
            give(paths().ledger_file, (owner, Rules(budgets=(budget,))))
            url = gateway.url("stub", "/v1/chat/completions")
            refused = await ask(client, url, max_tokens=1_000)
            assert refused.status_code == 402
            message = refused.json()["error"]["message"]
            [command] = re.findall(r"ogate (budgets raise session \d+)", message)
            await asyncio.to_thread(typed, command)
            assert (await ask(client, url, max_tokens=1_000)).status_code == 200
            gateway.finish()


@pytest.mark.parametrize(
    ("off", "on"),
    [
        ("budgets set day 0 --user tester", "budgets set day 5 --user tester"),
        (
            "budgets set month 1 --tokens --user tester",
            "budgets raise month 1M --tokens --user tester",
        ),
        ("budgets set total 0 --user tester", "budgets remove total --user tester --yes"),
        ("budgets set total 0 --user tester", "budgets set total 0 --user tester --shadow"),
    ],
)
async def test_a_change_holds_from_the_next_request_on(off: str, on: str) -> None:
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            url = gateway.url("stub", "/v1/chat/completions")
            assert (await ask(client, url, max_tokens=1_000)).status_code == 200
            await asyncio.to_thread(typed, off)
            assert (await ask(client, url, max_tokens=1_000)).status_code == 402
            await asyncio.to_thread(typed, on)
            assert (await ask(client, url, max_tokens=1_000)).status_code == 200
            gateway.finish()


async def test_a_file_holds_from_the_next_request_on(tmp_path) -> None:
    file = tmp_path / "rules.toml"
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            url = gateway.url("stub", "/v1/chat/completions")
            for text, status in (
                ("[users.tester.models]\ndeny = ['stub/*']\n", 403),
                ("[users.tester.models]\nallow = ['stub/m']\n", 200),
                ("[users.tester.models]\nallow = ['openai/*']\n", 403),
                ("[users.tester.models]\nallow = ['openai/*']\nmode = 'shadow'\n", 200),
                ("", 200),
            ):
                file.write_text(text)
                await asyncio.to_thread(typed, f"policy apply {file} --yes")
                assert (await ask(client, url, max_tokens=1_000)).status_code == status, text
            gateway.finish()
