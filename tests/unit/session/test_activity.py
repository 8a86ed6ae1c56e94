"""What runs now: joined from the ledger and the journals of living gateways, each call once."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.governance.policy import Budget, Owner, Rules, VirtualKey
from opencode_gate.ledger.governance_store import Standing, WindowKey
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import SqliteStore, open_store
from opencode_gate.session.activity import Watch
from tests.support.governance_fake import GovernanceFake
from tests.support.ledger_records import NOON_US, a_session, an_exchange, an_open_exchange

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
DAY_US = 24 * HOUR_US


class HandClock:
    """Time goes on when the test says so."""

    def __init__(self) -> None:
        self.us = NOON_US

    def now_us(self) -> int:
        return self.us

    def monotonic_s(self) -> float:
        return self.us / 1e6

    def go_on(self, seconds: float) -> None:
        self.us += round(seconds * SECOND_US)


def a_micro_dollar_a_token(exchange: ExchangeRecord) -> ExchangeRecord:
    """A price book that prices what has tokens and leaves alone what is priced."""
    tokens = (exchange.usage.input_tokens or 0) + (exchange.usage.output or 0)
    if exchange.usage.is_empty or exchange.cost_nano_usd is not None:
        return exchange
    is_exact = exchange.usage_quality is UsageQuality.REPORTED
    return msgspec.structs.replace(
        exchange,
        cost_nano_usd=tokens * 1000,
        cost_quality=CostQuality.PRICED if is_exact else CostQuality.ESTIMATED,
    )


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def session() -> SessionRecord:
    return a_session(started_at_us=NOON_US - 60 * SECOND_US)


@pytest.fixture
def store(tmp_path: Path, session: SessionRecord) -> Iterator[SqliteStore]:
    store = open_store(tmp_path / "ledger.db")
    store.add_session(session)
    yield store
    store.close()


@pytest.fixture
def journal(tmp_path: Path, session: SessionRecord, clock: HandClock) -> Iterator[Journal]:
    journal = Journal.create(tmp_path / "journals", session=session, clock=clock)
    yield journal
    journal.close()


@pytest.fixture
def governance() -> GovernanceFake:
    return GovernanceFake()


@pytest.fixture
def watch(tmp_path: Path, clock: HandClock, governance: GovernanceFake) -> Watch:
    return Watch(
        open_ledger=lambda: open_store(tmp_path / "ledger.db", read_only=True),
        open_governance=lambda: governance,
        user="ada",
        journals=tmp_path / "journals",
        price=a_micro_dollar_a_token,
        time_zone="UTC",
        clock=clock,
    )


def test_nothing_runs_where_nothing_ever_ran(tmp_path: Path, watch: Watch) -> None:
    activity = watch.look()
    assert (activity.running, activity.flights, activity.errors) == ((), (), ())
    assert activity.today.requests == 0
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.usefixtures("store")
def test_a_request_in_flight_shows_its_tokens_speed_and_cost_as_they_grow(
    watch: Watch, journal: Journal, session: SessionRecord, clock: HandClock
) -> None:
    """From its journal alone, which another process writes."""
    exchange = an_open_exchange(session_id=session.id, started_at_us=NOON_US)
    journal.opened(exchange, input_bytes=4000)
    clock.go_on(1)
    [flight] = watch.look().flights
    assert flight.elapsed_us == SECOND_US
    assert flight.tokens_per_s is None
    assert flight.exchange.usage.input_tokens == 1000
    assert flight.exchange.cost_nano_usd == 1_000_000
    clock.go_on(1)
    journal.progressed(exchange.id, TokenUsage(), 400)
    [flight] = watch.look().flights
    assert flight.exchange.usage.output == 100
    assert flight.tokens_per_s == 50
    clock.go_on(1)
    journal.progressed(exchange.id, TokenUsage(), 1200)
    activity = watch.look()
    [flight] = activity.flights
    assert flight.tokens_per_s == activity.tokens_per_s == 200
    assert activity.running[0].totals.cost_nano_usd == 1_300_000
    assert activity.today.cost_nano_usd == 1_300_000
    assert activity.running[0].up_us == 63 * SECOND_US
    assert watch.look().flights[0].tokens_per_s == 200
    clock.go_on(4)
    assert watch.look().flights[0].tokens_per_s == 0


def test_a_call_counts_once_from_its_first_byte_to_the_ledger(
    watch: Watch, journal: Journal, store: SqliteStore, session: SessionRecord, clock: HandClock
) -> None:
    """In flight, ended, committed but not yet marked, marked: the spend never falls back."""
    earlier = an_exchange(session_id=session.id, cost_nano_usd=10_000_000)
    store.fold([earlier])
    opened = an_open_exchange(session_id=session.id, started_at_us=NOON_US)
    ended = an_exchange(
        id=opened.id, session_id=session.id, started_at_us=NOON_US, cost_nano_usd=None
    )
    spent, requests = [], []

    def look() -> None:
        [running] = watch.look().running
        assert running.totals == watch.look().today
        spent.append(running.totals.cost_nano_usd)
        requests.append(running.totals.requests)

    look()
    journal.opened(opened, input_bytes=400)
    look()
    journal.finished(ended)
    look()
    store.fold([a_micro_dollar_a_token(ended)])
    look()
    journal.folded([ended.id])
    look()
    assert spent == [10_000_000, 10_100_000, 10_131_000, 10_131_000, 10_131_000]
    assert requests == [1, 2, 2, 2, 2]


@pytest.mark.usefixtures("store")
def test_a_request_without_a_price_yet_is_not_one_of_unknown_cost(
    watch: Watch, journal: Journal, session: SessionRecord
) -> None:
    """Until it ends: then it is."""
    exchange = an_open_exchange(session_id=session.id, started_at_us=NOON_US)
    journal.opened(exchange)
    assert watch.look().today.unknown_cost_requests == 0
    lost = {"usage": TokenUsage(), "cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN}
    journal.finished(an_exchange(id=exchange.id, session_id=session.id, **lost))
    assert watch.look().today.unknown_cost_requests == 1


def test_a_session_whose_gateway_is_gone_does_not_run(
    watch: Watch, journal: Journal, store: SqliteStore, session: SessionRecord
) -> None:
    """Its journal stays until the next start settles it; looking does not."""
    journal.opened(an_open_exchange(session_id=session.id))
    assert len(watch.look().running) == 1
    journal.close()
    activity = watch.look()
    assert (activity.running, activity.flights) == ((), ())
    assert journal.path.exists()
    assert store.exchanges(session.id) == []


@pytest.mark.usefixtures("store")
def test_two_sessions_run_side_by_side_with_their_own_figures(
    tmp_path: Path, watch: Watch, journal: Journal, session: SessionRecord, clock: HandClock
) -> None:
    later = a_session(started_at_us=NOON_US, project="loom")
    other = Journal.create(tmp_path / "journals", session=later, clock=clock)
    journal.opened(an_open_exchange(session_id=session.id), input_bytes=400)
    other.opened(an_open_exchange(session_id=later.id), input_bytes=800)
    other.opened(an_open_exchange(session_id=later.id, operation=Operation.LIST_MODELS))
    activity = watch.look()
    assert [each.session.id for each in activity.running] == [session.id, later.id]
    assert [each.totals.requests for each in activity.running] == [1, 1]
    assert [len(each.flights) for each in activity.running] == [1, 2]
    assert [each.totals.cost_nano_usd for each in activity.running] == [100_000, 200_000]
    assert activity.today.cost_nano_usd == 300_000
    other.close()


def test_errors_are_the_latest_of_a_day_and_esc_is_none(
    watch: Watch, store: SqliteStore, session: SessionRecord
) -> None:
    def ended(status: ExchangeStatus, ago_us: int) -> ExchangeRecord:
        return an_exchange(session_id=session.id, status=status, started_at_us=NOON_US - ago_us)

    shown = [
        ended(ExchangeStatus.DENIED, HOUR_US),
        ended(ExchangeStatus.INTERRUPTED, 2 * HOUR_US),
        ended(ExchangeStatus.UPSTREAM_ERROR, 3 * HOUR_US),
    ]
    store.fold(
        [
            *shown,
            ended(ExchangeStatus.CLIENT_DISCONNECTED, HOUR_US),
            ended(ExchangeStatus.COMPLETED, HOUR_US),
            ended(ExchangeStatus.UPSTREAM_ERROR, DAY_US + HOUR_US),
        ]
    )
    assert list(watch.look().errors) == shown
    watch.shown_errors = 2
    assert list(watch.look().errors) == shown[:2]


def test_today_begins_at_local_midnight(
    watch: Watch, store: SqliteStore, session: SessionRecord
) -> None:
    store.fold(
        [
            an_exchange(
                session_id=session.id, started_at_us=NOON_US - 12 * HOUR_US, cost_nano_usd=1
            ),
            an_exchange(
                session_id=session.id, started_at_us=NOON_US - 12 * HOUR_US - 1, cost_nano_usd=2
            ),
        ]
    )
    assert watch.look().today.cost_nano_usd == 1


def a_day_of(usd: str) -> Rules:
    return Rules(budgets=(Budget(window="day", usd=Decimal(usd)),))


def test_budgets_of_the_user_are_seen_also_while_nothing_runs(
    watch: Watch, governance: GovernanceFake
) -> None:
    """And nobody else's."""
    governance.give(Owner("user", "ada"), a_day_of("20"))
    governance.give(Owner("user", "bob"), a_day_of("1"))
    assert [str(one.owner) for one in watch.look().budgets] == ["user ada"]


def test_all_budgets_above_what_runs_the_fullest_first(
    watch: Watch, governance: GovernanceFake, journal: Journal, session: SessionRecord
) -> None:
    """Of the session, and of the virtual key its requests came under."""
    key = VirtualKey(public_id="p" * 12, secret_hash="s$h", budgets=a_day_of("10").budgets)
    governance.give(Owner("user", "ada"), a_day_of("20"))
    governance.give(
        Owner("session", session.id), Rules(budgets=(Budget(window="total", tokens=9),))
    )
    governance.give(Owner("vkey", "ci"), key)
    governance.money = {
        WindowKey("vkey:ci/day/usd", NOON_US - 12 * HOUR_US): Standing(9 * 10**9, 10**9),
        WindowKey(f"session:{session.id}/total/tokens", 0): Standing(5),
    }
    journal.opened(an_open_exchange(session_id=session.id, virtual_key="ci"))
    found = [(one.owner.kind, one.percent, one.warned_percent) for one in watch.look().budgets]
    assert found == [("vkey", 90, 80), ("session", 55, 50), ("user", 0, None)]


def test_the_budget_of_a_session_that_ended_at_a_gateway_for_many_is_no_more_seen(
    watch: Watch, governance: GovernanceFake, journal: Journal, store: SqliteStore
) -> None:
    """Its exchanges stay in the journal of the gateway, which goes on."""
    runs, ended = (a_session(id=f"01SERVED{name}", ended_at_us=None) for name in "AB")
    for one in (runs, ended):
        store.add_session(one)
        rules = Rules(budgets=(Budget(window="session", usd=Decimal(5)),))
        governance.give(Owner("session", one.id), rules)
        journal.opened(an_open_exchange(session_id=one.id))
    assert len(watch.look().budgets) == 2
    store.end_session(ended.id, ended_at_us=NOON_US, exit_status=0)
    assert [one.owner.name for one in watch.look().budgets] == [runs.id]


def test_rules_that_cannot_be_read_are_said_beside_all_else(
    watch: Watch, governance: GovernanceFake, journal: Journal
) -> None:
    """What runs is still shown."""
    governance.documents, governance.revision = {("user", "ada"): "{"}, 1
    activity = watch.look()
    assert len(activity.running) == 1
    assert (activity.budgets, "user ada" in activity.problem) == ((), True)
