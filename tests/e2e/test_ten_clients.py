"""Ten clients at once on one `ogate serve`: whose every call was, what rules allow, how it ends.

The clients are the official SDKs, plain and asynchronous, streaming and not, and the real
Opencode. The provider answers with the tokens a prompt names, so that what a client saw, what the
ledger has and what `ogate usage` says can be held against each other to the token.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors

from opencode_gate.core.semconv import ExchangeStatus, UsageQuality
from opencode_gate.governance.policy import Customer, ModelRules, RateLimit, Team
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.real_session import Person, until
from tests.support.served_gateway import (
    ServedGateway,
    free_port,
    put_key,
    put_rules,
    recorded,
    served,
)
from tests.support.telling_provider import (
    ANSWER,
    KEYS,
    MODELS,
    TellingProvider,
    Tokens,
    telling_provider,
)

pytestmark = pytest.mark.e2e

CALLS = 4
MAX_TOKENS = 100
TEXT = "".join(ANSWER)
MODEL, CLAUDE, GEMINI = MODELS.values()


@pytest.fixture
def provider() -> Iterator[TellingProvider]:
    with telling_provider() as running:
        yield running


# --- the clients: each sends one prompt and returns what it was told of its tokens ---


def _openai(url: str, key: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/p/openai/v1", api_key=key, max_retries=0, **more)


def _openai_async(url: str, key: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/p/openai/v1", api_key=key, max_retries=0)


def _messages(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def chat(url: str, key: str, prompt: str) -> Tokens:
    answer = _openai(url, key).chat.completions.create(
        model=MODEL, messages=_messages(prompt), max_completion_tokens=MAX_TOKENS
    )
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None
    return Tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens)


def chat_with_the_key_elsewhere(url: str, key: str, prompt: str) -> Tokens:
    client = _openai(url, "unused", default_headers={"x-ogate-key": key})
    answer = client.chat.completions.create(
        model=MODEL, messages=_messages(prompt), max_completion_tokens=MAX_TOKENS
    )
    assert answer.usage is not None
    return Tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens)


def streamed_chat(url: str, key: str, prompt: str) -> Tokens:
    text, usage = "", None
    for chunk in _openai(url, key).chat.completions.create(
        model=MODEL,
        messages=_messages(prompt),
        max_completion_tokens=MAX_TOKENS,
        stream=True,
        stream_options={"include_usage": True},
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == TEXT
    assert usage is not None
    return Tokens(usage.prompt_tokens, usage.completion_tokens)


def async_chat(url: str, key: str, prompt: str) -> Tokens:
    async def ask() -> Tokens:
        async with _openai_async(url, key) as client:
            answer = await client.chat.completions.create(
                model=MODEL, messages=_messages(prompt), max_completion_tokens=MAX_TOKENS
            )
        assert answer.usage is not None
        return Tokens(answer.usage.prompt_tokens, answer.usage.completion_tokens)

    return asyncio.run(ask())


def async_response(url: str, key: str, prompt: str) -> Tokens:
    async def ask() -> Tokens:
        async with _openai_async(url, key) as client:
            answer = await client.responses.create(
                model=MODEL, input=prompt, max_output_tokens=MAX_TOKENS
            )
        assert answer.output_text == TEXT
        assert answer.usage is not None
        return Tokens(answer.usage.input_tokens, answer.usage.output_tokens)

    return asyncio.run(ask())


def streamed_response(url: str, key: str, prompt: str) -> Tokens:
    text, found = "", None
    for event in _openai(url, key).responses.create(
        model=MODEL, input=prompt, max_output_tokens=MAX_TOKENS, stream=True
    ):
        if event.type == "response.output_text.delta":
            text += event.delta
        elif event.type == "response.completed":
            assert event.response.usage is not None
            found = Tokens(event.response.usage.input_tokens, event.response.usage.output_tokens)
    assert text == TEXT
    assert found is not None
    return found


def message(url: str, key: str, prompt: str) -> Tokens:
    client = anthropic.Anthropic(base_url=f"{url}/p/anthropic", api_key=key, max_retries=0)
    answer = client.messages.create(model=CLAUDE, max_tokens=MAX_TOKENS, messages=_messages(prompt))
    assert "".join(block.text for block in answer.content if block.type == "text") == TEXT
    return Tokens(answer.usage.input_tokens, answer.usage.output_tokens)


def streamed_message(url: str, key: str, prompt: str) -> Tokens:
    client = anthropic.Anthropic(base_url=f"{url}/p/anthropic", auth_token=key, max_retries=0)
    with client.messages.stream(
        model=CLAUDE, max_tokens=MAX_TOKENS, messages=_messages(prompt)
    ) as stream:
        assert "".join(stream.text_stream) == TEXT
        usage = stream.get_final_message().usage
    return Tokens(usage.input_tokens, usage.output_tokens)


def async_streamed_message(url: str, key: str, prompt: str) -> Tokens:
    async def ask() -> Tokens:
        async with (
            anthropic.AsyncAnthropic(
                base_url=f"{url}/p/anthropic", api_key=key, max_retries=0
            ) as client,
            client.messages.stream(
                model=CLAUDE, max_tokens=MAX_TOKENS, messages=_messages(prompt)
            ) as stream,
        ):
            assert await stream.get_final_text() == TEXT
            usage = (await stream.get_final_message()).usage
        return Tokens(usage.input_tokens, usage.output_tokens)

    return asyncio.run(ask())


def streamed_content(url: str, key: str, prompt: str) -> Tokens:
    client = genai.Client(api_key=key, http_options={"base_url": f"{url}/p/google"})
    text, found = "", None
    for chunk in client.models.generate_content_stream(
        model=GEMINI, contents=prompt, config={"max_output_tokens": MAX_TOKENS}
    ):
        text += chunk.text or ""
        usage = chunk.usage_metadata
        if usage is not None and usage.candidates_token_count is not None:
            assert usage.prompt_token_count is not None
            found = Tokens(usage.prompt_token_count, usage.candidates_token_count)
    assert text == TEXT
    assert found is not None
    return found


Client = Callable[[str, str, str], Tokens]
TEAM_OF: Mapping[str, str] = {
    "chat": "core",
    "streamed_chat": "core",
    "chat_elsewhere": "core",
    "async_chat": "infra",
    "async_response": "infra",
    "streamed_response": "infra",
    "message": "infra",
    "streamed_message": "lab",
    "async_streamed_message": "lab",
    "streamed_content": "lab",
    "opencode": "lab",
}
CUSTOMER_OF = {"core": "acme", "infra": "acme", "lab": "globex"}
SDKS: Mapping[str, Client] = {
    "chat": chat,
    "streamed_chat": streamed_chat,
    "chat_elsewhere": chat_with_the_key_elsewhere,
    "async_chat": async_chat,
    "async_response": async_response,
    "streamed_response": streamed_response,
    "message": message,
    "streamed_message": streamed_message,
    "async_streamed_message": async_streamed_message,
    "streamed_content": streamed_content,
}


def told(tokens: Tokens, who: str, *words: str) -> str:
    return " ".join([f"in={tokens.input} out={tokens.output} who={who}", *words])


def ogate(*arguments: str, status: int = 0) -> Any:
    """A command in another terminal; with `--json` its document."""
    done = subprocess.run(
        [sys.executable, "-m", "opencode_gate.cli.main", *arguments],
        env=os.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def tokens_of(record: ExchangeRecord) -> Tokens:
    assert record.usage.input_tokens is not None
    assert record.usage.output is not None
    return Tokens(record.usage.input_tokens, record.usage.output)


def status_of(client: Client, url: str, key: str, prompt: str) -> tuple[int, str]:
    """The HTTP status of an attempt, and the code of a refusal."""
    try:
        client(url, key, prompt)
    except openai.APIStatusError as error:
        return error.status_code, str(error.code)
    except anthropic.APIStatusError as error:
        return error.status_code, str(error.type)
    except genai_errors.APIError as error:
        return int(error.code), str(error.status)
    return 200, ""


def the_money_is_all_accounted_for(*owners: str) -> None:
    """Nothing is held; what budgets have spent is what the ledger's calls cost; the trail holds."""
    records = recorded()
    for budget in ogate("budgets", "list", "--json")["budgets"]:
        assert budget["held"] == "0", budget
        if budget["owner"] in owners:
            kind, name = budget["owner_kind"], budget["owner"]
            mine = [
                one.cost_nano_usd
                for one in records
                if name == (one.virtual_key if kind == "vkey" else getattr(one, kind))
                and one.cost_nano_usd is not None
            ]
            assert Decimal(budget["spent"]) == Decimal(sum(mine)) / 10**9, budget
    assert ogate("audit", "verify", "--json")["findings"] == []


def test_every_call_is_under_the_key_team_and_customer_it_came_from(
    tmp_path: Path, provider: TellingProvider
) -> None:
    """All at the same time; ledger, `ogate usage` and what the clients saw agree."""
    for name in ("acme", "globex"):
        put_rules("customer", name, Customer())
    for name, customer in CUSTOMER_OF.items():
        put_rules("team", name, Team(customer=customer))
    keys = {name: put_key(name, team=team) for name, team in TEAM_OF.items()}
    ogate("budgets", "set", "month", "500", "--customer", "acme")
    ogate("budgets", "set", "day", "75", "--team", "infra")
    ogate("budgets", "set", "total", "50", "--vkey", "chat")
    start = threading.Barrier(len(keys))

    def work(name: str, number: int, url: str) -> list[Tokens]:
        start.wait(60)
        saw = []
        for turn in range(CALLS):
            wanted = Tokens(100 + 37 * number + turn, 1 + number + 11 * turn % MAX_TOKENS)
            saw.append(SDKS[name](url, keys[name], told(wanted, name)))
            assert saw[-1] == wanted
        return saw

    person = Person(tmp_path)

    def opencode(url: str) -> dict[str, Any]:
        start.wait(60)
        done = person.ogate(
            *("run", "--no-input", "--summary", "json", "--gateway", url),
            *("--", "run", "-m", f"openai/{MODEL}", told(Tokens(700, 30), "opencode")),
            OGATE_HOME=str(tmp_path / "client"),
            OGATE_KEY=keys["opencode"],
        )
        assert done.returncode == 0, done.stderr
        assert TEXT in done.stdout
        summary: dict[str, Any] = json.loads(done.stderr[done.stderr.index('{\n  "version"') :])
        return summary

    with (
        served(tmp_path, port=free_port(), **KEYS) as gateway,
        ThreadPoolExecutor(len(keys)) as pool,
    ):
        its = pool.submit(opencode, gateway.url)
        running = {
            name: pool.submit(work, name, number, gateway.url) for number, name in enumerate(SDKS)
        }
        saw = {name: future.result(90) for name, future in running.items()}
        summary = its.result(90)
        assert gateway.stop() == 0
    records = recorded()
    for name, tokens in saw.items():
        mine = [one for one in records if one.virtual_key == name]
        assert sorted(map(tokens_of, mine)) == sorted(tokens), name
        assert {(one.team, one.customer) for one in mine} == {
            (TEAM_OF[name], CUSTOMER_OF[TEAM_OF[name]])
        }
        assert all(one.status is ExchangeStatus.COMPLETED for one in mine)
        assert all(one.usage_quality is UsageQuality.REPORTED for one in mine)
        assert [one.cost_nano_usd for one in mine] == [tokens_of(one).nano_usd for one in mine]
    of_opencode = [one for one in records if one.virtual_key == "opencode"]
    assert len(records) == CALLS * len(SDKS) + len(of_opencode)
    assert summary["totals"]["requests"] == len(of_opencode)
    assert summary["totals"]["input_tokens"] == sum(tokens_of(one).input for one in of_opencode)
    assert Tokens(700, 30) in map(tokens_of, of_opencode)
    assert {one.session_id for one in of_opencode} == {summary["session"]["id"]}
    rows = ogate("usage", "--by", "vkey,team,customer", "--json")["rows"]
    assert len(rows) == len(keys)
    for row in rows:
        mine = [one for one in records if one.virtual_key == row["vkey"]]
        assert (row["team"], row["customer"]) == (
            TEAM_OF[row["vkey"]],
            CUSTOMER_OF[TEAM_OF[row["vkey"]]],
        )
        assert row["requests"] == len(mine)
        assert row["input_tokens"] == sum(tokens_of(one).input for one in mine)
        assert row["output_tokens"] == sum(tokens_of(one).output for one in mine)
        cost = sum(one.cost_nano_usd or 0 for one in mine)
        assert Decimal(row["cost_usd"]) == Decimal(cost) / 10**9
    the_money_is_all_accounted_for("acme", "infra", "chat")


def test_limits_hold_to_the_request(tmp_path: Path, provider: TellingProvider) -> None:
    """So many a minute, so many at once, a budget of three keys, a list of models, an end date."""
    put_rules("team", "core", Team())
    shared = {name: put_key(name, team="core") for name in ("one", "two", "three")}
    few = put_key("few", limits=(RateLimit(requests=5, per="minute"),))
    narrow = put_key("narrow", limits=(RateLimit(concurrent=2),))
    barred = put_key("barred", models=ModelRules(allow=("anthropic/*",)))
    late = put_key("late", expires_at="2026-01-01T00:00:00+01:00")
    provider.seconds["narrow"] = 0.1
    prompt = told(Tokens(120, 9), "shared", "most")
    with served(tmp_path, port=free_port(), **KEYS) as gateway, ThreadPoolExecutor(32) as pool:
        url = gateway.url
        cost = chat(url, shared["one"], prompt).nano_usd
        budget = Decimal(cost * 15 // 2) / 10**9
        ogate("budgets", "set", "total", str(budget), "--team", "core")

        def several(
            times: int, client: Client, key: str, asked: str
        ) -> list[Future[tuple[int, str]]]:
            return [pool.submit(status_of, client, url, key, asked) for _ in range(times)]

        ways = zip(shared.values(), (chat, async_chat, chat_with_the_key_elsewhere), strict=True)
        of_team = [one for key, client in ways for one in several(4, client, key, prompt)]
        of_few = several(8, streamed_response, few, told(Tokens(120, 9), "few"))
        of_barred = several(2, chat, barred, told(Tokens(120, 9), "barred"))
        of_barred += several(2, streamed_message, barred, told(Tokens(120, 9), "barred"))
        of_late = several(2, message, late, told(Tokens(120, 9), "late"))
        found = {
            name: Counter(one.result(60) for one in futures)
            for name, futures in {
                "team": of_team,
                "few": of_few,
                "barred": of_barred,
                "late": of_late,
            }.items()
        }
        of_narrow = several(6, streamed_chat, narrow, told(Tokens(120, 9), "narrow", "hold"))
        until(lambda: provider.held == 2, "two at once")
        provider.release.set()
        assert {one.result(60) for one in of_narrow} == {(200, "")}
        assert gateway.stop() == 0
    assert found["team"][200, ""] == 7
    assert sum(n for (status, _), n in found["team"].items() if status == 402) == 5
    assert found["few"] == {(200, ""): 5, (429, "rate-limited"): 3}
    assert provider.most_at_once["narrow"] == 2
    assert found["barred"] == {(403, "provider-denied"): 2, (200, ""): 2}
    assert found["late"] == {(401, "authentication_error"): 2}
    [row] = ogate("budgets", "list", "--team", "core", "--json")["budgets"]
    assert Decimal(row["spent"]) == Decimal(7 * cost) / 10**9 <= budget
    refused = Counter(one.virtual_key for one in recorded() if one.denial is not None)
    assert refused["few"] == 3
    assert refused["barred"] == refused["late"] == 2
    assert sum(refused[name] for name in shared) == 5
    assert ogate("audit", "verify", "--json")["findings"] == []


def test_a_command_of_another_process_acts_on_the_very_next_request(
    tmp_path: Path, provider: TellingProvider
) -> None:
    """While answers of others go on, and end as if nothing had happened."""
    steady, bob = put_key("steady"), put_key("bob")
    with served(tmp_path, port=free_port(), **KEYS) as gateway, ThreadPoolExecutor(4) as pool:
        url, plain = gateway.url, told(Tokens(120, 9), "bob")

        def of_bob(key: str = bob) -> tuple[int, str]:
            return status_of(chat, url, key, plain)

        going_on = [
            pool.submit(client, url, steady, told(Tokens(321, 45), "steady", "hold"))
            for client in (streamed_chat, streamed_response, async_streamed_message)
        ]
        bobs_own = pool.submit(streamed_chat, url, bob, told(Tokens(222, 22), "bob", "hold"))
        until(lambda: provider.held == 4, "four answers that go on")
        assert of_bob() == (200, "")
        ogate("vkeys", "disable", "bob")
        assert of_bob() == (401, "virtual-key-disabled")
        ogate("vkeys", "enable", "bob")
        assert of_bob() == (200, "")
        new = ogate("vkeys", "rotate", "bob", "--json")["secret"]
        assert of_bob() == (401, "unknown-virtual-key")
        assert of_bob(new) == (200, "")
        ogate("budgets", "set", "total", "0.001", "--vkey", "bob")
        assert of_bob(new) == (402, "insufficient_quota")
        ogate("budgets", "raise", "total", "5", "--vkey", "bob")
        assert of_bob(new) == (200, "")
        ogate("vkeys", "set", "bob", "--deny", f"openai/{MODEL}")
        assert of_bob(new) == (403, "model-denied")
        ogate("vkeys", "revoke", "bob", "--yes")
        assert of_bob(new) == (401, "unknown-virtual-key")
        assert not any(one.done() for one in (*going_on, bobs_own))
        provider.release.set()
        assert [one.result(30) for one in going_on] == [Tokens(321, 45)] * 3
        assert bobs_own.result(30) == Tokens(222, 22)
        assert gateway.stop() == 0
    done = Counter(one.virtual_key for one in recorded() if one.denial is None)
    assert done == {"steady": 3, "bob": 5}
    the_money_is_all_accounted_for()


def test_sigterm_lets_every_running_answer_end(tmp_path: Path, provider: TellingProvider) -> None:
    """Whatever it is in; nobody new comes in, and the account is whole when the process is gone."""
    put_rules("team", "core", Team())
    names = [*list(SDKS)[:3], "async_response", "message", "async_streamed_message"]
    names += ["streamed_content", "streamed_response"]
    keys = {name: put_key(name, team="core") for name in names}
    ogate("budgets", "set", "total", "50", "--team", "core")
    with served(tmp_path, port=free_port(), **KEYS) as gateway, ThreadPoolExecutor(8) as pool:
        running = {
            name: pool.submit(
                SDKS[name], gateway.url, keys[name], told(Tokens(200 + n, 10 + n), name, "hold")
            )
            for n, name in enumerate(names)
        }
        until(lambda: provider.held == len(names), "answers that run")
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: _is_closed(gateway), "the end of new connections")
        assert gateway.process.poll() is None
        assert not any(one.done() for one in running.values())
        provider.release.set()
        saw = {name: one.result(30) for name, one in running.items()}
        assert gateway.process.wait(30) == 0
    assert saw == {name: Tokens(200 + n, 10 + n) for n, name in enumerate(names)}
    records = recorded()
    assert {one.virtual_key: tokens_of(one) for one in records} == saw
    assert {one.status for one in records} == {ExchangeStatus.COMPLETED}
    the_money_is_all_accounted_for("core")


@pytest.mark.parametrize("killed", ["gateway process", "all"])
def test_sigkill_in_the_middle_of_answers_loses_no_record_and_no_money(
    tmp_path: Path, provider: TellingProvider, killed: str
) -> None:
    """What had ended is exact, what was cut is estimated, nothing stays reserved; it goes on."""
    put_rules("team", "core", Team())
    cut = {"streamed_chat", "streamed_response", "streamed_message", "streamed_content"}
    keys = {name: put_key(name, team="core") for name in SDKS}
    ogate("budgets", "set", "total", "50", "--team", "core")
    port = free_port()
    with ThreadPoolExecutor(len(SDKS)) as pool:
        with served(tmp_path, port=port, **KEYS) as gateway:
            url = gateway.url
            ended = {
                name: pool.submit(client, url, keys[name], told(Tokens(150, 20), name))
                for name, client in SDKS.items()
            }
            assert {one.result(60) for one in ended.values()} == {Tokens(150, 20)}
            hanging = [
                pool.submit(SDKS[name], url, keys[name], told(Tokens(160, 21), name, "hold"))
                for name in cut
            ]
            until(lambda: provider.held == len(cut), "answers that run")
            if killed == "all":
                gateway.kill()
            else:
                os.kill(gateway.inner, signal.SIGKILL)
            assert all(one.exception(30) is not None for one in hanging)
            if killed == "gateway process":
                assert chat(url, keys["chat"], told(Tokens(170, 22), "chat")) == Tokens(170, 22)
                assert gateway.stop() == 0
        if killed == "all":
            with served(tmp_path, port=port, **KEYS) as gateway:
                assert chat(url, keys["chat"], told(Tokens(170, 22), "chat")) == Tokens(170, 22)
                assert gateway.stop() == 0
    by_status: dict[ExchangeStatus, list[ExchangeRecord]] = {}
    for record in recorded():
        by_status.setdefault(record.status, []).append(record)
    assert by_status.keys() == {ExchangeStatus.COMPLETED, ExchangeStatus.INTERRUPTED}
    completed = Counter(tokens_of(one) for one in by_status[ExchangeStatus.COMPLETED])
    assert completed == {Tokens(150, 20): len(SDKS), Tokens(170, 22): 1}
    interrupted = by_status[ExchangeStatus.INTERRUPTED]
    assert {one.virtual_key for one in interrupted} == cut
    assert len(interrupted) == len(cut)
    for one in interrupted:
        assert one.usage_quality in (UsageQuality.ESTIMATED, UsageQuality.LOWER_BOUND)
        assert one.cost_nano_usd
    the_money_is_all_accounted_for("core")


def _is_closed(gateway: ServedGateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), 1).close()
    except ConnectionRefusedError:
        return True
    return False
