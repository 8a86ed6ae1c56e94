"""Whatever is sent to a gateway under rules: an answer or a refusal that its format knows.

Never a 5xx of ours, never silence, and no money left reserved. Then the troubles a gateway may
have with its own rules: unreadable, out of reach, incomplete; it refuses, says why, and goes on
once they are mended.
"""

import contextlib
import json
import sqlite3
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.policy import Budget, ModelRules, Owner, RateLimit, Rules
from opencode_gate.ledger.governance_store import WindowKey
from opencode_gate.ledger.policy_mark import PolicyMark
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.wire.refusals import OVERFLOW_PATTERN, RETRY_PATTERN
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.rules import give

USER = Owner("user", "tester")
FORBIDDEN = "forbidden-one"
MONEY = Budget(window="total", usd=Decimal(50))
TOKENS = Budget(window="total", tokens=10**9)
RULES = Rules(
    models=ModelRules(deny=(f"stub/{FORBIDDEN}*",)),
    limits=(RateLimit(concurrent=4), RateLimit(requests=10**6, per="minute")),
    budgets=(MONEY, TOKENS),
)
TIMEOUT_S = 30.0
FINAL = (400, 401, 402, 403, 404)


@dataclass(frozen=True)
class Format:
    """A wire format: where its requests go, and how one looks."""

    path: str
    body: str
    answer: dict[str, object]


CHAT = Format(
    "/v1/chat/completions",
    '{"model": MODEL, "messages": [{"role": "user", "content": TEXT}], MORE}',
    {
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    },
)
RESPONSES = Format(
    "/v1/responses",
    '{"model": MODEL, "input": TEXT, MORE}',
    {
        "status": "completed",
        "output": [],
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
)
ANTHROPIC = Format(
    "/v1/messages",
    '{"model": MODEL, "messages": [{"role": "user", "content": TEXT}], MORE}',
    {
        "content": [{"type": "text", "text": "x"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
)
GEMINI = Format(
    "/v1beta/models/MODEL:generateContent",
    '{"contents": [{"role": "user", "parts": [{"text": TEXT}]}], "generationConfig": {MORE}}',
    {
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
    },
)
FORMATS = (CHAT, RESPONSES, ANTHROPIC, GEMINI)


class _Provider(BaseHTTPRequestHandler):
    """Answers anything with one short answer; it reads nothing of what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path.partition("?")[0]
        asked = next(
            (one for one in FORMATS if path.endswith(one.path.rpartition("MODEL")[2])), CHAT
        )
        body = json.dumps(asked.answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@contextlib.contextmanager
def governed(rules: Rules = RULES, **prices: float) -> Iterator[RunningGateway]:
    """A gateway under rules, with a provider all of whose models have a price."""
    open_store(paths().ledger_file).close()
    give(paths().ledger_file, (USER, rules))
    given = prices or {"input": 10.0, "output": 30.0}
    set_values(paths(), {("prices", "stub/*", name): usd for name, usd in given.items()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Provider)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    row = ProviderRow(id="stub", name="Stub", base_url=address, source="config")
    try:
        with running_gateway([row]) as gateway:
            yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sent(
    client: httpx.Client, gateway: RunningGateway, path: str, body: bytes, **headers: bytes
) -> httpx.Response:
    """The answer to a request; waiting for one for ever is a failure."""
    known = {"authorization": f"Bearer {TOKEN}".encode(), "content-type": b"application/json"}
    raw = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(gateway.url("stub", path), content=body, headers={**known, **raw})


def request(
    asked: Format, *, model: str = "m", text: str = "hello", more: str = ""
) -> tuple[str, bytes]:
    """Path and body of a request; `more` are members as they are to stand in the JSON."""
    body = asked.body.replace(", MORE", f", {more}" if more else "").replace("MORE", more)
    body = body.replace("MODEL", json.dumps(model)).replace("TEXT", json.dumps(text))
    path = asked.path.replace(
        "MODEL", urllib.parse.quote(model.encode("utf-8", "replace"), safe="")
    )
    return path, body.encode("utf-8", "surrogatepass")


def is_segment(model: str) -> bool:
    """Whether a model can be named in a path."""
    return model.encode("utf-8", "replace").strip(b"/") != b"" and not {"?", "\ud83d"} & {*model}


def assert_known(asked: Format, answer: httpx.Response) -> None:
    """An answer of the provider's, or a refusal in the words of the format."""
    if answer.status_code == 200:
        return
    assert answer.status_code in (*FINAL, 429), answer.text
    document = answer.json()
    error = document["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    if asked is ANTHROPIC:
        assert document["type"] == "error"
        assert isinstance(error["type"], str)
    elif asked is GEMINI:
        assert error["code"] == answer.status_code
    else:
        assert {"message", "type", "param", "code"} == set(error)
    if answer.status_code in FINAL:
        assert RETRY_PATTERN.search(answer.text) is None, answer.text
        assert OVERFLOW_PATTERN.search(answer.text) is None, answer.text


def assert_all_is_settled(gateway: RunningGateway) -> None:
    """Every request is one record, and what it cost is spent; nothing is held."""
    gateway.finish()
    records = gateway.exchanges()
    assert ExchangeStatus.OPEN not in {record.status for record in records}
    assert {record.error_type for record in records} <= {None, "protocol"}
    store = open_governance(paths().ledger_file)
    for budget in (MONEY, TOKENS):
        key = WindowKey(budget.id_for(USER), 0)
        spent, held, _ = store.standings([key])[key]
        assert held == 0
        if budget is MONEY:
            assert spent == sum(record.cost_nano_usd or 0 for record in records)
            assert spent <= MONEY.limit
    store.close()
    ledger = open_store(paths().ledger_file)
    assert ledger.integrity() == []
    ledger.close()


SOME = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.integers(15, 400).map(lambda zeros: "1" + "0" * zeros),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        [
            *("-0", "0", "-1", "0.5", "1e308", "1E400", "-1e999", "1e-400", "NaN", "Infinity"),
            *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "1_0"),
            *('"5"', '"1e9"', "null", "true", "[]", "{}", "[1]", '{"a":1}', "00", "+1", "0x10"),
        ]
    ),
)
words = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            "'; DROP TABLE exchanges; --",
            '" OR 1=1; --',
            "m'||(SELECT hex(randomblob(9)))||'",
            "stub/../../etc/passwd",
            "%00%0d%0aX: y",
            "..",
            "{}",
            "\x00",
            "\ud83d",
            "a" * 5_000,
            FORBIDDEN,
            f"{FORBIDDEN.upper()} ",
            "gpt-4-0429",
            "rate limit 503 exhausted",
        ]
    ),
)
names = st.sampled_from(
    [
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "n"),
        *("candidateCount", "candidate_count", "stream", "background", "service_tier", "models"),
        *("thinking", "thinkingConfig", "reasoning", "previous_response_id", "cachedContent"),
    ]
)
members = st.lists(st.tuples(names, numbers), max_size=4).map(
    lambda pairs: ", ".join(f'"{name}": {value}' for name, value in pairs)
)


def test_odd_numbers_models_and_prompts_are_answered_or_refused() -> None:
    with governed() as gateway, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:

        @SOME
        @example(CHAT, "m", "", '"n": 1000000000000000000000000000000')
        @example(CHAT, "m", "", '"n": 1e308, "max_tokens": 1e308')
        @example(CHAT, "m", "", '"max_tokens": 99999999999999999999')
        @example(ANTHROPIC, "m", "", '"thinking": {"type": "enabled", "budget_tokens": 1e300}')
        @example(GEMINI, "m", "", '"maxOutputTokens": -9223372036854775809')
        @given(st.sampled_from(FORMATS), words, words, members)
        def hold(asked: Format, model: str, text: str, more: str) -> None:
            if asked is GEMINI and not is_segment(model):
                return
            path, body = request(asked, model=model, text=text, more=more)
            assert_known(asked, sent(client, gateway, path, body))

        hold()
        for asked in FORMATS:
            assert sent(client, gateway, *request(asked)).status_code == 200
            refused = sent(client, gateway, *request(asked, model=FORBIDDEN))
            assert refused.status_code == 403
        assert_all_is_settled(gateway)


def test_odd_keys_and_headers_open_nothing_and_break_nothing() -> None:
    """Only the token opens the door; what else stands in headers is data, for SQL too."""
    header = st.one_of(
        st.binary(max_size=80),
        words.map(lambda text: text.encode("utf-8", "replace")[:400]),
        st.sampled_from([f"ogk-{'a' * 12}-{'b' * 48}".encode(), TOKEN.encode()[1:]]),
    ).map(lambda raw: bytes(b for b in raw if b >= 32 and b != 127).strip())
    places = ("authorization", "x_api_key", "x_goog_api_key", "api_key", "x_ogate_key")
    with governed() as gateway, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:

        @SOME
        @given(st.sampled_from(FORMATS), st.sampled_from(places), header)
        def without_token(asked: Format, place: str, value: bytes) -> None:
            path, body = request(asked)
            answer = sent(client, gateway, path, body, **{"authorization": b"", place: value})
            assert answer.status_code == 401
            assert_known(asked, answer)

        @SOME
        @given(st.sampled_from(FORMATS), header, header)
        def with_token(asked: Format, session: bytes, parent: bytes) -> None:
            path, body = request(asked)
            headers = {"x_session_id": session, "x_parent_session_id": parent}
            answer = sent(client, gateway, path, body, **headers)
            assert answer.status_code in (200, 402)
            assert_known(asked, answer)

        without_token()
        with_token()
        assert_all_is_settled(gateway)
        assert {record.denial for record in gateway.exchanges()} <= {
            None,
            "runaway",
            "request-loop",
        }


def put(ledger: sqlite3.Connection, document: str | bytes) -> None:
    """Writes what stands for somebody's rules past everything that would look at it, and says so
    as every change of rules does.
    """
    ledger.execute("UPDATE policy_documents SET document = CAST(? AS TEXT)", [document])
    ledger.execute("UPDATE policy_revisions SET revision = revision + 1")
    PolicyMark(paths().ledger_file).changed()


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "",
        "null",
        "[]",
        '{"budgets": [{"window": "fortnight", "usd": 5}]}',
        '{"budgets": [{"window": "day", "usd": "1e999999999"}]}',
        '{"budgets": [{"window": "day", "usd": 5000000000}]}',
        '{"budgets": [{"window": "day", "tokens": 9223372036854775808}]}',
        '{"budgets": [{"window": "day", "usd": 5, "rolling": true, "since_us": 1e40}]}',
        '{"budgets": [{"window": "day", "usd": -1}]}',
        '{"models": {"allow": []}}',
        '{"time_zone": "Europe/Atlantis", "budgets": [{"window": "day", "usd": 5}]}',
        '{"newer": true}',
        b"\xff\xfe",
    ],
)
def test_rules_that_cannot_be_read_refuse_everything_until_they_are_mended(
    document: str | bytes,
) -> None:
    with governed() as gateway, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        assert sent(client, gateway, *request(CHAT)).status_code == 200
        with contextlib.closing(sqlite3.connect(paths().ledger_file)) as ledger, ledger:
            [[good]] = ledger.execute("SELECT document FROM policy_documents")
            put(ledger, document)
        for asked in FORMATS:
            refused = sent(client, gateway, *request(asked))
            assert refused.status_code == 403, refused.text
            assert_known(asked, refused)
            assert "the rules cannot be read, so every request is refused" in refused.text
        with contextlib.closing(sqlite3.connect(paths().ledger_file)) as ledger, ledger:
            put(ledger, good)
        for asked in FORMATS:
            assert sent(client, gateway, *request(asked)).status_code == 200
        assert_all_is_settled(gateway)
        denials = [record.denial for record in gateway.exchanges()]
    assert denials == [None, *["policy-unreadable"] * 4, *[None] * 4]


def test_a_ledger_that_is_locked_denies_and_loses_nothing() -> None:
    """Somebody else holds it; who is under a budget waits a few seconds and is told."""
    with governed() as gateway, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        with contextlib.closing(sqlite3.connect(paths().ledger_file)) as ledger:
            ledger.execute("BEGIN EXCLUSIVE")
            for asked in FORMATS[:1]:
                refused = sent(client, gateway, *request(asked))
                assert refused.status_code == 403, refused.text
                assert_known(asked, refused)
                assert "the ledger cannot be asked what is left" in refused.text
                assert "(ogate doctor)" in refused.text
            ledger.rollback()
        for asked in FORMATS:
            assert sent(client, gateway, *request(asked)).status_code == 200
        assert_all_is_settled(gateway)
        denials = [record.denial for record in gateway.exchanges()]
    assert denials == ["ledger-locked", *[None] * 4]


def test_what_is_leased_is_answered_while_the_ledger_is_locked_and_charged_afterwards() -> None:
    """The ledger has it as held already, so nobody else can spend it."""
    short = request(CHAT, more='"max_tokens": 10')
    with governed() as gateway, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        assert sent(client, gateway, *short).status_code == 200
        with contextlib.closing(sqlite3.connect(paths().ledger_file)) as ledger:
            ledger.execute("BEGIN EXCLUSIVE")
            assert [sent(client, gateway, *short).status_code for _ in range(3)] == [200] * 3
            ledger.rollback()
        assert_all_is_settled(gateway)
        assert [record.cost_nano_usd for record in gateway.exchanges()] == [250_000] * 4


@pytest.mark.parametrize("on_unknown_price", ["block", "warn"])
def test_what_has_no_price_is_denied_under_a_budget_until_it_has_one(
    on_unknown_price: str,
) -> None:
    set_values(paths(), {("pricing", "on_unknown_price"): on_unknown_price})
    with (
        governed(input=10.0) as gateway,
        httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client,
    ):
        for asked in FORMATS:
            refused = sent(client, gateway, *request(asked))
            assert refused.status_code == 403, refused.text
            assert_known(asked, refused)
            assert "no price is known for stub/m" in refused.text
        assert_all_is_settled(gateway)
        assert {record.denial for record in gateway.exchanges()} == {"unknown-price"}
    with governed() as gateway, httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        for asked in FORMATS:
            assert sent(client, gateway, *request(asked)).status_code == 200
        assert_all_is_settled(gateway)
