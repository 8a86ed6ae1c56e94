"""Several processes behind one address write one ledger: no money twice, and no row lost."""

import asyncio
import collections
import contextlib
import http.client
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx

from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.policy import Budget, Owner
from opencode_gate.ledger.governance_store import WindowKey
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.priced_provider import nano_usd_of, priced_provider
from tests.support.served_gateway import ServedGateway, put_key, served
from tests.support.served_workers import each_worker

FITS = 37
MAX_TOKENS = 200


def body_of(prompt: str) -> bytes:
    """A request of always the same size."""
    message = {"role": "user", "content": prompt.ljust(40, ".")}
    return json.dumps({"model": "m", "max_tokens": MAX_TOKENS, "messages": [message]}).encode()


WORST = nano_usd_of(len(body_of("")), MAX_TOKENS)


async def test_a_budget_is_spent_once_over_all_workers(tmp_path: Path) -> None:
    """To the last nano-dollar, however many ask whichever worker at once, and while one dies."""
    budget = Budget(window="total", usd=Decimal(FITS * WORST).scaleb(-9))
    ada = put_key("ada", budgets=(budget,))
    key = WindowKey(budget.id_for(Owner("vkey", "ada")), 0)
    async with priced_provider() as provider:
        set_values(
            paths(),
            {
                ("providers", "stub", "base_url"): f"http://127.0.0.1:{provider.port}/v1",
                ("providers", "stub", "wire"): "openai-chat",
                ("providers", "stub", "keyless"): True,
                ("providers", "stub", "models", "m", "name"): "m",
            },
        )
        with served(tmp_path, "--workers", "3") as gateway:
            url = f"{gateway.url}/p/stub/v1/chat/completions"
            headers = {
                "authorization": f"Bearer {ada}",
                "content-type": "application/json",
                # A connection of its own for each request, so that the kernel spreads them.
                "connection": "close",
            }

            async def ask(client: httpx.AsyncClient, number: int) -> int | None:
                with contextlib.suppress(httpx.TransportError):
                    body = body_of(f"hello {number}")
                    return (await client.post(url, content=body, headers=headers)).status_code
                return None

            async with httpx.AsyncClient(timeout=90) as client:
                first = await asyncio.gather(*(ask(client, number) for number in range(12)))
                assert first == [200] * 12
                os.kill(gateway.workers[0], signal.SIGKILL)
                statuses = await asyncio.gather(*(ask(client, number) for number in range(300)))
            assert await asyncio.to_thread(gateway.stop) == 0
    governance = open_governance(paths().ledger_file)
    spent, held, _ = governance.standings([key])[key]
    governance.close()
    assert set(statuses) <= {200, 402, None}
    assert len(provider.bodies) == FITS
    assert (spent, held) == (FITS * WORST, 0)


def test_every_answer_is_in_the_ledger_though_a_worker_is_killed_under_load(
    tmp_path: Path,
) -> None:
    """Both fold into one database without waiting in vain; each answer's row is there once.

    One that left in the very moment of the death may be taken for one that was cut.
    """
    ada = put_key("ada")
    answered: list[str] = []
    half = threading.Barrier(7)

    def work(gateway: ServedGateway, client: int) -> None:
        for number in range(80):
            if number == 40:
                half.wait(60)
            name = f"c{client}n{number}"
            headers = {"x-session-id": name}
            with contextlib.suppress(OSError, http.client.HTTPException):
                body = {"model": "scripted", "messages": [{"role": "user", "content": name}]}
                path = "/p/practice/v1/chat/completions"
                if gateway.ask("POST", path, ada, body, headers).status == 200:
                    answered.append(name)

    with served(tmp_path, "--workers", "2") as gateway:
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(work, gateway, client) for client in range(6)]
            half.wait(60)
            os.kill(gateway.workers[0], signal.SIGKILL)
            for future in futures:
                future.result()
        assert gateway.stop() == 0
    store = open_store(paths().ledger_file, read_only=True)
    records = [one for session in store.sessions() for one in store.exchanges(session.id)]
    problems = store.integrity()
    store.close()
    rows = collections.Counter(record.conversation_id for record in records)
    assert len(answered) > 240
    assert not [name for name in answered if rows[name] != 1]
    cut = [record for record in records if record.status is not ExchangeStatus.COMPLETED]
    assert {record.status for record in cut} <= {ExchangeStatus.INTERRUPTED}
    assert len(cut) <= 6
    assert problems == []
    assert not [line for line in gateway.said if "cannot be" in line]


def test_an_ended_session_is_accounted_for_also_by_what_a_killed_worker_served(
    tmp_path: Path,
) -> None:
    """Whoever is asked has all of it, though nobody had yet folded what the dead one served."""
    ada = put_key("ada")
    with served(tmp_path, "--workers", "2") as gateway, each_worker(gateway) as workers:
        one, other = workers.values()
        _, token = gateway.open_session(ada)
        for _ in range(5):
            assert one.chat(token).status == 200
            assert other.chat(token).status == 200
        # Who answers again has written down the answer before.
        one.ask("GET", "/nowhere", token)
        os.kill(one.pid, signal.SIGKILL)
        ended = other.ask("POST", "/ogate/v1/session/end", token, {"exit_status": 0})
        assert ended.status == 200
        assert [each["status"] for each in ended.document["exchanges"]] == ["completed"] * 10
