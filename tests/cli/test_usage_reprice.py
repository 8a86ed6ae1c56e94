"""`ogate usage reprice`: it shows what changes, writes it once, and loses no old amount."""

import json
from datetime import UTC, datetime

import pytest

from opencode_gate.cli import ledger_pages
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import CostQuality, ExchangeStatus
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from tests.support.ledger_records import a_session, an_exchange

DAY_US = 86_400_000_000
NOON_US = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 1_000_000
UNKNOWN = {"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN, "price_source": None}
REPORTED = {
    "reported_cost_nano_usd": 7_000_000,
    "cost_nano_usd": 7_000_000,
    "priced_cost_nano_usd": 11_250_000,
    "cost_quality": CostQuality.REPORTED,
    "price_source": "provider",
}


@pytest.fixture
def ledger() -> dict[str, ExchangeRecord]:
    """Calls of a model whose price turns out to be another, on two days."""
    session = a_session()

    def call(**changes: object) -> ExchangeRecord:
        fields: dict[str, object] = {
            "session_id": session.id,
            "provider_name": "openai",
            "request_model": "gpt-5",
            "response_model": None,
            "started_at_us": NOON_US,
            "usage": TokenUsage(input_uncached=1000, output=1000),
            "cost_nano_usd": 11_250_000,
            "price_source": "genai-prices 0.2.3",
        }
        return an_exchange(**{**fields, **changes})

    calls = {
        "today": call(),
        "yesterday": call(started_at_us=NOON_US - DAY_US),
        "unknown": call(**UNKNOWN),
        "reported": call(**REPORTED),
        "open": call(status=ExchangeStatus.OPEN, **UNKNOWN),
        "denied": call(status=ExchangeStatus.DENIED, **UNKNOWN),
    }
    store = open_store(paths().ledger_file)
    store.add_session(session)
    store.fold(calls.values())
    store.close()
    paths().config_file.parent.mkdir(parents=True, exist_ok=True)
    paths().config_file.write_text(
        '[prices."openai/gpt-5"]\nsince = 2026-11-21\ninput = 1\noutput = 2\n', encoding="utf-8"
    )
    return calls


def stored(calls: dict[str, ExchangeRecord]) -> dict[str, ExchangeRecord]:
    store = open_store(paths().ledger_file, read_only=True)
    found = {record.id: record for record in store.exchanges(calls["today"].session_id)}
    store.close()
    return {name: found[record.id] for name, record in calls.items()}


def document(capsys, *flags: str) -> dict:
    assert main(["usage", "reprice", *flags, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_a_dry_run_shows_the_change_per_model_and_writes_nothing(ledger, capsys) -> None:
    before = stored(ledger)
    found = document(capsys, "--dry-run")
    assert found["is_written"] is False
    assert (found["examined_requests"], found["beside_reported_requests"]) == (4, 1)
    assert found["models"] == [
        {
            "provider_name": "openai",
            "request_model": "gpt-5",
            "changed_requests": 2,
            "old_cost_usd": "0.01125",
            "old_unknown_cost_requests": 1,
            "new_cost_usd": "0.006",
            "price_sources": ["config.toml"],
        }
    ]
    assert stored(ledger) == before


def test_without_it_the_new_amounts_count_and_the_old_ones_stay_beside_them(ledger, capsys) -> None:
    assert document(capsys)["is_written"] is True
    now = stored(ledger)
    today, unknown = now["today"], now["unknown"]
    assert (today.cost_nano_usd, today.price_source) == (3_000_000, "config.toml")
    assert (today.superseded_cost_nano_usd, today.superseded_price_source) == (
        11_250_000,
        "genai-prices 0.2.3",
    )
    assert (unknown.cost_nano_usd, unknown.cost_quality) == (3_000_000, CostQuality.PRICED)
    assert (unknown.superseded_cost_nano_usd, unknown.superseded_price_source) == (None, "none")
    assert now["yesterday"].cost_nano_usd == 11_250_000
    assert now["open"] == ledger["open"]
    assert now["denied"] == ledger["denied"]


def test_a_reported_cost_is_never_touched(ledger, capsys) -> None:
    document(capsys)
    reported = stored(ledger)["reported"]
    assert (reported.cost_nano_usd, reported.cost_quality) == (7_000_000, CostQuality.REPORTED)
    assert (reported.reported_cost_nano_usd, reported.price_source) == (7_000_000, "provider")
    assert reported.superseded_price_source is None
    assert reported.priced_cost_nano_usd == 3_000_000


def test_a_second_run_changes_nothing_and_a_third_price_keeps_the_first_amount(
    ledger, capsys
) -> None:
    document(capsys)
    once = stored(ledger)
    assert document(capsys)["models"] == []
    assert stored(ledger) == once
    paths().config_file.write_text('[prices."openai/gpt-5"]\ninput = 5\noutput = 5\n')
    document(capsys)
    today = stored(ledger)["today"]
    assert (today.cost_nano_usd, today.superseded_cost_nano_usd) == (10_000_000, 11_250_000)


def test_only_what_began_in_the_span_is_looked_at(ledger, capsys) -> None:
    paths().config_file.write_text('[prices."openai/gpt-5"]\ninput = 1\noutput = 2\n')
    found = document(capsys, "--since", "2026-11-20", "--until", "2026-11-20")
    assert (found["examined_requests"], found["totals"]["changed_requests"]) == (1, 1)
    assert stored(ledger)["today"].cost_nano_usd == 11_250_000


def test_a_long_ledger_is_read_in_pages_without_a_gap(ledger, capsys, monkeypatch) -> None:
    monkeypatch.setattr(ledger_pages, "PAGE", 1)
    assert document(capsys)["totals"]["changed_requests"] == 2
    monkeypatch.setattr(ledger_pages, "PAGE", 2)
    assert document(capsys)["examined_requests"] == 4


def test_people_see_both_sums_their_difference_and_what_was_done(ledger, capsys) -> None:
    assert main(["usage", "reprice", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert (
        out
        == """\
all time: 4 requests looked at

model          requests           old       new   difference   by
openai/gpt-5          2   $ 0.011 + ?   $ 0.006    - $ 0.005   config.toml
total                 2   $ 0.011 + ?   $ 0.006    - $ 0.005

1 request with a reported cost: it goes on counting, the book's changes
? had no known price, and is not in the old sum
"""
    )
    assert err == "nothing was written; without --dry-run it is\n"
    assert main(["usage", "reprice"]) == 0
    assert "kept beside the new ones" in capsys.readouterr().err


def test_where_nothing_changes_it_says_so(capsys) -> None:
    assert main(["usage", "reprice", "--dry-run"]) == 0
    assert capsys.readouterr() == ("all time: 0 requests looked at, no amount changes\n", "")


def test_options_before_the_verb_are_not_dropped_in_silence(capsys) -> None:
    assert main(["usage", "--today", "reprice"]) == 2
    assert "come after its name" in capsys.readouterr().err
