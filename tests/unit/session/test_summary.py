"""The account of a session adds up, and says only what is known."""

from pathlib import Path

import msgspec
import pytest

from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
    WireFormat,
)
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.session.summary import summarise
from tests.support.ledger_records import a_session, an_exchange

SESSION = SessionRecord(
    id="01M7ZM0000000000000000SESS",
    user="u",
    agent="opencode",
    agent_version="1.18.33",
    directory="/p",
    project="p",
    started_at_us=0,
)


def exchange(number: int, **changes: object) -> ExchangeRecord:
    record = ExchangeRecord(
        id=f"01M7ZM00000000000000000{number:03d}",
        session_id=SESSION.id,
        conversation_id="ses_main",
        operation=Operation.GENERATE,
        wire_format=WireFormat.OPENAI_CHAT,
        provider_name="acme",
        request_model="big",
        streamed=True,
        status=ExchangeStatus.COMPLETED,
        http_status=200,
        attempts=1,
        started_at_us=number,
        time_to_first_chunk_us=500_000,
        duration_us=2_500_000,
        usage=TokenUsage(input_uncached=100, cache_read=10, output=50),
        usage_quality=UsageQuality.REPORTED,
        cost_nano_usd=1_000_000,
        cost_quality=CostQuality.PRICED,
    )
    return msgspec.structs.replace(record, **changes)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    opened = open_store(tmp_path / "ledger.db")
    opened.add_session(SESSION)
    return opened


def test_models_and_conversations_add_up_to_the_totals(store: SqliteStore) -> None:
    store.fold(
        [
            exchange(1),
            exchange(2, request_model="small", kind=ConversationKind.TITLE, cost_nano_usd=5),
            exchange(
                3,
                conversation_id="ses_sub",
                parent_conversation_id="ses_main",
                kind=ConversationKind.SUBAGENT,
            ),
        ]
    )
    store.put_conversations(
        [ConversationRecord(id="ses_main", session_id=SESSION.id, title="Mend the parser")]
    )
    account = summarise(store, SESSION.id)
    assert account.totals.requests == 3
    assert sum(model.totals.cost_nano_usd or 0 for model in account.models) == 2_000_005
    assert sum(part.totals.cost_nano_usd or 0 for part in account.conversations) == 2_000_005
    assert [model.request_model for model in account.models] == ["big", "small"]
    kinds = {part.record.kind: part.record for part in account.conversations}
    assert kinds[ConversationKind.MAIN].title == "Mend the parser"
    assert kinds[ConversationKind.TITLE].id == "ses_main"
    assert kinds[ConversationKind.SUBAGENT].parent_id == "ses_main"


def test_without_a_model_call_nothing_is_known_and_nothing_is_zero(store: SqliteStore) -> None:
    account = summarise(store, SESSION.id)
    assert account.models == ()
    assert account.totals.cost_nano_usd is None
    assert account.timing.output_tokens_per_s is None


def test_speed_is_over_answers_that_really_streamed(store: SqliteStore) -> None:
    at_once = {"time_to_first_chunk_us": 500_000, "duration_us": 500_100}
    store.fold([exchange(1), exchange(2, **at_once)])
    timing = summarise(store, SESSION.id).timing
    assert timing.output_tokens_per_s == pytest.approx(25)
    assert timing.time_to_first_chunk_s_p50 == pytest.approx(0.5)


def test_the_gateways_own_time_is_a_median_of_what_is_known(store: SqliteStore) -> None:
    """Calls of which nobody wrote it down are left out, and are not counted as no time."""
    store.fold([exchange(1, gateway_us=None)])
    assert summarise(store, SESSION.id).timing.gateway_us_p50 is None
    store.fold([exchange(2, gateway_us=300), exchange(3, gateway_us=900, streamed=False)])
    assert summarise(store, SESSION.id).timing.gateway_us_p50 == 600


def test_trouble_counts_second_tries_cuts_and_errors(store: SqliteStore) -> None:
    store.fold(
        [
            exchange(1, attempts=3),
            exchange(2, status=ExchangeStatus.CLIENT_DISCONNECTED),
            exchange(3, status=ExchangeStatus.INTERRUPTED),
            exchange(4, status=ExchangeStatus.UPSTREAM_ERROR),
            exchange(5, error_type="usage_contradicts"),
        ]
    )
    trouble = summarise(store, SESSION.id).trouble
    assert (trouble.retries, trouble.interrupted, trouble.errors) == (2, 2, 1)
    assert trouble.contradicted == 1


def test_what_a_rule_refused_is_no_error_but_a_request_nobody_understands_is(
    store: SqliteStore,
) -> None:
    denial = '[{"rule":"budget","outcome":"deny","code":"budget-exceeded","message":"no"}]'
    refused = {"status": ExchangeStatus.DENIED, "denial": "budget-exceeded", "decisions": denial}
    store.fold(
        [exchange(1, **refused), exchange(2, status=ExchangeStatus.DENIED, denial="bad-body")]
    )
    account = summarise(store, SESSION.id)
    assert account.trouble.errors == 1
    assert [one.requests for one in account.decided.refused] == [1]


def test_what_caches_saved_is_summed_and_what_has_no_price_is_counted(store: SqliteStore) -> None:
    session = a_session()
    store.add_session(session)
    read = TokenUsage(input_uncached=1, cache_read=9, output=1)
    store.fold(
        [
            an_exchange(session_id=session.id, usage=read, cache_saved_nano_usd=700),
            an_exchange(session_id=session.id, usage=read, cache_saved_nano_usd=-200),
            an_exchange(session_id=session.id, usage=read),
            an_exchange(session_id=session.id, usage=TokenUsage(input_uncached=1, output=1)),
        ]
    )
    account = summarise(store, session.id)
    assert (account.cache_saved_nano_usd, account.cache_unknown_requests) == (500, 1)
