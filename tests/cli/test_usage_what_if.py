"""`ogate usage --what-if`: a table, bars, and never an amount without what it leaves out."""

import json
from datetime import UTC, datetime

import pytest

from opencode_gate.cli import ledger_pages
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core import clock
from opencode_gate.core.semconv import CostQuality, ExchangeStatus
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import a_session, an_exchange

NOON_US = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 1_000_000
DAY_US = 86_400_000_000
PRICES = """
[prices."openai/cheap"]
input = 1
cache_read = 0.1
output = 2
[prices."openai/dear"]
input = 100
output = 200
[prices."my-own/large"]
input = 10
cache_read = 1
output = 20
"""


@pytest.fixture(autouse=True)
def ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls today, one of unknown cost, and what must not count: refused, open, last month."""
    monkeypatch.setattr(clock.SystemClock, "now_us", lambda _: NOON_US)
    session = a_session()

    def call(**changes: object) -> object:
        fields: dict[str, object] = {
            "session_id": session.id,
            "provider_name": "anthropic",
            "request_model": "claude-sonnet-4-5",
            "started_at_us": NOON_US - 1_000_000,
            "usage": TokenUsage(input_uncached=100_000, cache_read=900_000, output=10_000),
            "cost_nano_usd": 720_000_000,
        }
        return an_exchange(**{**fields, **changes})

    unknown = {"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN, "price_source": None}
    store = open_store(paths().ledger_file)
    store.add_session(session)
    store.fold(
        [
            call(),
            call(**unknown),
            call(http_status=400, usage=TokenUsage(), **unknown),
            call(status=ExchangeStatus.OPEN, **unknown),
            call(started_at_us=NOON_US - 40 * DAY_US),
        ]
    )
    store.close()
    paths().config_file.parent.mkdir(parents=True, exist_ok=True)
    paths().config_file.write_text(PRICES, encoding="utf-8")


def document(capsys, *flags: str) -> dict:
    assert main(["usage", *flags, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_the_document_has_both_sums_and_the_caveats_as_data(capsys) -> None:
    found = document(capsys, "--what-if", "openai/cheap,openai/dear", "--what-if", "openai/cheap")
    assert found["version"] == 1
    assert found["since"].startswith("2026-")
    compared = found["what_if"]
    assert (compared["input_tokens"], compared["cache_read_input_tokens"]) == (2_000_000, 1_800_000)
    assert compared["actual"] == {
        "requests": 2,
        "cost_usd": "0.72",
        "cost_quality": "unknown",
        "unknown_cost_requests": 1,
    }
    cheap, dear = compared["models"]
    assert cheap == {
        "provider_name": "openai",
        "model": "cheap",
        "requests": 2,
        "cost_usd": "0.42",
        "cost_quality": "priced",
        "unknown_cost_requests": 0,
        "price_sources": ["config.toml"],
        "compared": {
            "requests": 1,
            "actual_cost_usd": "0.72",
            "cost_usd": "0.21",
            "ratio": 0.2917,
        },
        "caveats": [],
    }
    assert (dear["cost_usd"], dear["compared"]["ratio"]) == ("204", 141.6667)
    assert [(one["code"], one["requests"]) for one in dear["caveats"]] == [("no-cache-price", 2)]
    assert [one["code"] for one in compared["caveats"]] == [
        "tokenizers-differ",
        "reasoning-differs",
    ]


def test_people_get_a_table_bars_and_the_caveats_in_words(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    flags = ["--today", "--what-if", "openai/cheap,openai/dear,my-own/large"]
    assert main(["usage", *flags]) == 0
    assert (
        capsys.readouterr().out
        == """\
today: 2 requests, 2.00 M in (90 % cached), 20.0 k out

model                 cost   against   prices from
as it was      $ 0.720 + ?
openai/cheap       $ 0.420    - 71 %   config.toml
openai/dear      $ 204.000     x 142   config.toml
my-own/large       $ 4.200   + 192 %   config.toml

as it was    ▎ $0.72 + ?
openai/cheap ▏ $0.42
openai/dear  █████████████████████████████████████████████████████████ $204.00
my-own/large █▏ $4.20

openai/dear: 2 requests: no price for cached input: what was read from a cache
counts as plain input
`against` compares the requests whose cost is known on both sides
another model counts the same text as more or fewer tokens
another model thinks more or less, and takes other steps to the same end
"""
    )


def test_a_price_nobody_knows_is_not_zero(capsys) -> None:
    flags = ["--what-if", "google/gemma-4-31b-it"]
    (unknown,) = document(capsys, *flags)["what_if"]["models"]
    assert (unknown["cost_usd"], unknown["unknown_cost_requests"]) == (None, 2)
    assert unknown["compared"]["ratio"] is None
    assert [one["code"] for one in unknown["caveats"]] == ["unknown-price"]
    assert main(["usage", *flags]) == 0
    assert "google/gemma-4-31b-it ?" in capsys.readouterr().out


def test_a_model_whose_window_is_too_small_says_so(capsys) -> None:
    (small,) = document(capsys, "--what-if", "openai/gpt-4o")["what_if"]["models"]
    assert ("too-long", 2) in [(one["code"], one["requests"]) for one in small["caveats"]]


def test_a_long_ledger_is_compared_page_by_page(capsys, monkeypatch) -> None:
    whole = document(capsys, "--since", "60d", "--what-if", "openai/cheap")
    monkeypatch.setattr(ledger_pages, "PAGE", 1)
    assert document(capsys, "--since", "60d", "--what-if", "openai/cheap") == whole
    assert whole["what_if"]["actual"]["requests"] == 3


def test_nothing_counted_is_not_free(capsys) -> None:
    assert main(["usage", "--until", "2020-01-01", "--what-if", "openai/cheap"]) == 0
    assert capsys.readouterr().out == "until 2020-01-01: nothing was counted\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--what-if", "openai/gpt5"], "openai has no model 'gpt5'"),
        (["--what-if", "opnai/gpt-5"], "openai"),
        (["--what-if", "claude-sonnet-4-5"], "anthropic/claude-sonnet-4-5"),
        (["--what-if", "openai/cheap", "--by", "day"], "--by"),
        (["--what-if", "openai/cheap", "--short"], "--short"),
        (["--what-if", "openai/cheap", "--csv"], "--csv"),
        (["--what-if", "openai/cheap", "--source", "opencode"], "--source"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, line, says) -> None:
    assert main(["usage", *line]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
