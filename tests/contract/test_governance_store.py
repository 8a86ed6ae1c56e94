"""What every ledger database promises of rules, budgets and the audit trail."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opencode_gate.core.errors import LedgerError
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.audit_check import Finding, verify
from opencode_gate.ledger.audit_files import head_file, read_head, seal_beside
from opencode_gate.ledger.governance_store import (
    GovernanceStore,
    LeaseWish,
    PolicyDocument,
    Standing,
    WindowKey,
)
from opencode_gate.ledger.policy_mark import mark_file
from opencode_gate.ledger.records import Charge, ExchangeRecord, Repricing
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.sqlite import SqliteStore, connection, open_store
from opencode_gate.ledger.sqlite.audit import open_audit
from opencode_gate.ledger.sqlite.governance import open_governance
from tests.support.governance_children import COST, KEYS, LEASED, NEEDED, STEPS, child
from tests.support.ledger_records import a_session, an_exchange, an_open_exchange

DAY = WindowKey("user:ada/day/usd", 1_000)
MONTH = WindowKey("team:core/month/usd", 500)
SESSION = WindowKey("session:01S/session/usd", 0)

OpenGovernance = Callable[[], GovernanceStore]


@pytest.fixture
def ledger_file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ledger.db"


@pytest.fixture(params=["sqlite"])
def open_again(request: pytest.FixtureRequest, ledger_file: Path) -> Iterator[OpenGovernance]:
    """Opens the rules and budgets of this test, once more each time."""
    opened: list[GovernanceStore] = []

    def sqlite() -> GovernanceStore:
        opened.append(open_governance(ledger_file))
        return opened[-1]

    yield {"sqlite": sqlite}[request.param]
    for store in opened:
        store.close()


@pytest.fixture
def store(open_again: OpenGovernance) -> GovernanceStore:
    return open_again()


@pytest.fixture
def ledger(ledger_file: Path, store: GovernanceStore) -> Iterator[SqliteStore]:
    """The exchanges of the same database."""
    with closing(open_store(ledger_file)) as opened:
        yield opened


def wish(key: WindowKey, limit: int, needed: int, wanted: int | None = None) -> LeaseWish:
    return LeaseWish(key, limit, needed, needed if wanted is None else wanted)


def leased(store: GovernanceStore, process_id: str, *wishes: LeaseWish) -> list[int]:
    return [lease.amount for lease in store.lease(process_id, wishes)]


def standing(store: GovernanceStore, key: WindowKey, process_id: str | None = None) -> Standing:
    return store.standings([key], process_id=process_id)[key]


def an_exchange_on(*keys: WindowKey, reserved: int = 100, **changes: Any) -> ExchangeRecord:
    charges = tuple(Charge(*key, key.budget_id.rpartition("/")[2], reserved) for key in keys)
    return an_exchange(charges=charges, **changes)


# Rules


def test_rules_read_back_as_they_were_written(store: GovernanceStore, open_again: OpenGovernance):
    """For another connection too, with the revision they are of."""
    assert store.policy() == (0, [])
    documents = [PolicyDocument("vkey", "ci", "{}"), PolicyDocument("team", "Übung; --", '{"a":1}')]
    revision = store.put_policy(documents, operator="ada", at_us=1)
    assert revision > 0
    found_revision, found = open_again().policy()
    assert found_revision == revision
    assert sorted(found) == sorted(documents)


def test_a_change_replaces_and_none_removes(store: GovernanceStore):
    store.put_policy(
        [PolicyDocument("team", "a", "{}"), PolicyDocument("team", "b", "{}")],
        operator="ada",
        at_us=1,
    )
    changes = [PolicyDocument("team", "a", '{"x":2}'), PolicyDocument("team", "b", None)]
    store.put_policy(changes, operator="ada", at_us=2)
    assert store.policy()[1] == [PolicyDocument("team", "a", '{"x":2}')]


def test_a_change_of_rules_is_whole_or_not_at_all(store: GovernanceStore):
    """A name no database takes spoils all of it."""
    with pytest.raises((LedgerError, ValueError)):
        store.put_policy(
            [PolicyDocument("team", "a", "{}"), PolicyDocument("team", "\ud800", "{}")],
            operator="ada",
            at_us=1,
        )
    assert store.policy() == (0, [])


def test_every_change_of_rules_raises_the_revision_and_shows_in_the_mark(
    store: GovernanceStore, open_again: OpenGovernance
):
    """A gateway looks at the mark for each request; nothing changed, nothing shows."""
    other = open_again()
    revisions = [store.policy_revision()]
    mark = store.change_mark()
    assert store.change_mark() == mark
    for number in range(3):
        other.put_policy(
            [PolicyDocument("team", "a", f'{{"n":{number}}}')], operator="ada", at_us=number
        )
        assert store.change_mark() != mark
        mark = store.change_mark()
        assert store.change_mark() == mark
        revisions.append(store.policy_revision())
    assert revisions == sorted(set(revisions))


def test_a_change_that_changes_nothing_leaves_the_revision(store: GovernanceStore):
    document = PolicyDocument("team", "a", "{}")
    revision = store.put_policy([document], operator="ada", at_us=1)
    assert store.put_policy([document], operator="ada", at_us=2) == revision
    gone = PolicyDocument("team", "nobody", None)
    assert store.put_policy([gone], operator="ada", at_us=3) == revision


# Leases


def test_a_lease_takes_what_is_needed_of_all_budgets_or_of_none(store: GovernanceStore):
    """The one that has too little stops the others."""
    assert leased(store, "P", wish(DAY, 1_000, 400), wish(MONTH, 500, 400)) == [400, 400]
    assert leased(store, "P", wish(DAY, 1_000, 400), wish(MONTH, 500, 400)) == [0, 0]
    assert standing(store, DAY) == Standing(0, 400, 0)
    assert standing(store, MONTH, "P") == Standing(0, 400, 400)
    assert leased(store, "P", wish(DAY, 1_000, 600)) == [600]
    assert leased(store, "Q", wish(DAY, 1_000, 1)) == [0]


def test_an_answer_tells_how_the_budget_stands(store: GovernanceStore):
    """Granted or not, after it."""
    [lease] = store.lease("P", [wish(DAY, 100, 60)])
    assert lease.standing == Standing(0, 60, 60)
    [lease] = store.lease("Q", [wish(DAY, 100, 60)])
    assert (lease.amount, lease.standing) == (0, Standing(0, 60, 0))


def test_a_lease_goes_to_the_last_nano_dollar_and_no_further(store: GovernanceStore):
    assert leased(store, "P", wish(DAY, 1_000, 1_000)) == [1_000]
    assert leased(store, "P", wish(DAY, 1_000, 1)) == [0]
    assert leased(store, "P", wish(DAY, 1_000, 0)) == [0]


def test_beyond_what_is_needed_a_lease_takes_at_most_a_64th_of_what_is_left(
    store: GovernanceStore,
):
    """So that the last of a budget lies in no process that does not use it."""
    limit, needed, held = 100_000, 10, 0
    for _ in range(400):
        [lease] = store.lease("P", [wish(DAY, limit, needed, wanted=10**9)])
        left = limit - held - needed
        if left < 0:
            assert lease.amount == 0
            break
        assert needed <= lease.amount <= needed + left // 64
        held += lease.amount
    assert limit - held < needed


def test_what_costs_nothing_fits_also_where_more_was_spent_than_there_is(
    store: GovernanceStore, ledger: SqliteStore
):
    ledger.fold([an_exchange_on(DAY, cost_nano_usd=150)])
    tokens = WindowKey("user:ada/day/tokens", 0)
    assert leased(store, "P", wish(DAY, 100, 0), wish(tokens, 100, 60)) == [0, 60]
    assert leased(store, "P", wish(DAY, 100, 1)) == [0]
    assert standing(store, DAY).held == 0


def test_a_lease_takes_no_more_than_is_wanted(store: GovernanceStore):
    assert leased(store, "P", wish(DAY, 10**12, 10, wanted=25)) == [25]


def test_the_same_budget_asked_for_twice_is_leased_twice(store: GovernanceStore):
    """Or not at all."""
    assert leased(store, "P", wish(DAY, 100, 60), wish(DAY, 100, 60)) == [0, 0]
    assert leased(store, "P", wish(DAY, 100, 60), wish(DAY, 100, 40)) == [60, 40]
    assert standing(store, DAY) == Standing(0, 100, 0)


def test_a_raised_limit_gives_more_at_once_and_a_lowered_one_nothing(store: GovernanceStore):
    """With money held and spent under the old one."""
    assert leased(store, "P", wish(DAY, 100, 90)) == [90]
    assert leased(store, "P", wish(DAY, 100, 50)) == [0]
    assert leased(store, "P", wish(DAY, 140, 50)) == [50]
    assert leased(store, "P", wish(DAY, 20, 1)) == [0]
    store.give_back("P", {DAY: 130})
    assert leased(store, "P", wish(DAY, 20, 10)) == [10]
    assert leased(store, "P", wish(DAY, 20, 1)) == [0]


def test_what_is_given_back_can_be_had_by_others(store: GovernanceStore):
    leased(store, "P", wish(DAY, 100, 100), wish(MONTH, 100, 100))
    store.give_back("P", {DAY: 30})
    assert leased(store, "Q", wish(DAY, 100, 30)) == [30]
    assert leased(store, "Q", wish(MONTH, 100, 1)) == [0]


def test_nobody_gives_back_more_than_it_holds(store: GovernanceStore):
    """What others hold stays theirs."""
    leased(store, "P", wish(DAY, 100, 20))
    leased(store, "Q", wish(DAY, 100, 60))
    store.give_back("P", {DAY: 1_000, MONTH: 5})
    assert standing(store, DAY) == Standing(0, 60, 0)
    assert standing(store, MONTH) == Standing()


def test_the_end_of_a_process_returns_all_it_holds_and_nothing_else(
    store: GovernanceStore, ledger: SqliteStore
):
    leased(store, "P", wish(DAY, 100, 20), wish(SESSION, 100, 30))
    leased(store, "Q", wish(DAY, 100, 50))
    assert store.lease_holders() == {"P", "Q"}
    ledger.end_process("P")
    ledger.end_process("P")
    assert store.lease_holders() == {"Q"}
    assert store.standings([DAY, SESSION]) == {DAY: Standing(0, 50, 0), SESSION: Standing()}


def test_a_clock_set_back_opens_no_window_again(store: GovernanceStore, ledger: SqliteStore):
    """What is asked of an earlier window is leased from the latest one that was used."""
    yesterday = DAY._replace(window_start_us=900)
    leased(store, "P", wish(yesterday, 100, 100))
    [lease] = store.lease("P", [wish(DAY, 100, 10)])
    assert lease.key == DAY
    [lease] = store.lease("P", [wish(yesterday, 100, 70)])
    assert (lease.key, lease.amount) == (DAY, 70)
    [lease] = store.lease("P", [wish(yesterday, 100, 70)])
    assert (lease.key, lease.amount) == (DAY, 0)
    assert store.latest_windows([DAY.budget_id, "nobody's"]) == {DAY.budget_id: 1_000}


def test_a_new_window_begins_with_nothing_spent(store: GovernanceStore, ledger: SqliteStore):
    """And what is held in the old one is not in its way."""
    leased(store, "P", wish(DAY, 100, 100))
    ledger.fold([an_exchange_on(DAY, cost_nano_usd=70)], process_id="P")
    tomorrow = DAY._replace(window_start_us=2_000)
    assert leased(store, "P", wish(tomorrow, 100, 100)) == [100]
    assert standing(store, DAY, "P") == Standing(70, 30, 30)


def test_a_window_that_was_only_charged_counts_as_used(store: GovernanceStore, ledger: SqliteStore):
    """A budget that only warns leases nothing."""
    ledger.fold([an_exchange_on(DAY, reserved=0, cost_nano_usd=5)])
    assert store.latest_windows([DAY.budget_id]) == {DAY.budget_id: 1_000}


# Charges


def test_a_charge_moves_money_from_held_to_spent(store: GovernanceStore, ledger: SqliteStore):
    """What was reserved and not used stays with the process, to be reserved again."""
    leased(store, "P", wish(DAY, 1_000, 100), wish(MONTH, 1_000, 100))
    ledger.fold([an_exchange_on(DAY, MONTH, cost_nano_usd=60)], process_id="P")
    for key in (DAY, MONTH):
        assert standing(store, key, "P") == Standing(60, 40, 40)


def test_what_a_provider_bills_beyond_the_reservation_is_charged_too(
    store: GovernanceStore, ledger: SqliteStore
):
    """And no more is taken from the lease than was reserved."""
    leased(store, "P", wish(DAY, 1_000, 150))
    ledger.fold([an_exchange_on(DAY, cost_nano_usd=130)], process_id="P")
    assert standing(store, DAY, "P") == Standing(130, 50, 50)


def test_folding_twice_charges_once(store: GovernanceStore, ledger: SqliteStore):
    """Also in one batch, by another process, or with a lesser end."""
    leased(store, "P", wish(DAY, 1_000, 400))
    exchange = an_exchange_on(DAY, cost_nano_usd=60)
    ledger.fold([exchange, exchange], process_id="P")
    ledger.fold([exchange], process_id="P")
    ledger.fold([exchange], process_id="Q")
    lesser = msgspec.structs.replace(
        exchange, status=ExchangeStatus.INTERRUPTED, cost_nano_usd=10_000
    )
    ledger.fold([lesser], process_id="P")
    assert standing(store, DAY, "P") == Standing(60, 340, 340)


def test_a_better_known_end_moves_what_was_spent_by_the_difference(
    store: GovernanceStore, ledger: SqliteStore
):
    """What was an estimate of a dead process turns out otherwise; its lease is gone by then."""
    leased(store, "P", wish(DAY, 1_000, 400))
    guessed = an_exchange_on(DAY, cost_nano_usd=90, status=ExchangeStatus.INTERRUPTED)
    ledger.fold([guessed], process_id="P")
    assert standing(store, DAY) == Standing(90, 310, 0)
    true = msgspec.structs.replace(guessed, status=ExchangeStatus.COMPLETED, cost_nano_usd=40)
    ledger.fold([true], process_id="P")
    assert standing(store, DAY) == Standing(40, 310, 0)


def test_an_open_exchange_is_charged_when_it_ends(store: GovernanceStore, ledger: SqliteStore):
    exchange = an_exchange_on(DAY, cost_nano_usd=60)
    opened = an_open_exchange(id=exchange.id, charges=exchange.charges)
    ledger.fold([opened])
    assert standing(store, DAY) == Standing()
    ledger.fold([opened, exchange])
    assert standing(store, DAY) == Standing(60, 0, 0)


UNKNOWN: dict[str, Any] = {"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN}


def test_an_unknown_cost_charges_the_reservation(store: GovernanceStore, ledger: SqliteStore):
    """Nobody can say that it was less."""
    leased(store, "P", wish(DAY, 1_000, 100))
    ledger.fold([an_exchange_on(DAY, **UNKNOWN)], process_id="P")
    assert standing(store, DAY, "P") == Standing(100, 0, 0)


def test_a_budget_in_tokens_is_charged_all_tokens(store: GovernanceStore, ledger: SqliteStore):
    """Input, cached or not, and output; unknown ones as reserved, a refused request none."""
    key = WindowKey("user:ada/day/tokens", 0)
    usage = TokenUsage(input_uncached=100, cache_read=20, cache_write_5m=3, output=7, reasoning=2)
    ledger.fold([an_exchange_on(key, usage=usage)])
    assert standing(store, key).spent == 130
    ledger.fold([an_exchange_on(key, usage=TokenUsage(), **UNKNOWN)])
    assert standing(store, key).spent == 230
    ledger.fold([an_exchange_on(key, usage=TokenUsage(), cost_nano_usd=0)])
    assert standing(store, key).spent == 230


def test_an_estimate_charges_no_more_than_was_reserved(store: GovernanceStore, ledger: SqliteStore):
    """Within its limits the request could not cost more. What only counts has no such bound."""
    tokens, counted = WindowKey("user:ada/day/tokens", 0), WindowKey("user:ada/month/usd", 0)
    estimated: dict[str, Any] = {
        "cost_nano_usd": 170,
        "cost_quality": CostQuality.ESTIMATED,
        "usage": TokenUsage(input_uncached=100, output=50),
        "usage_quality": UsageQuality.ESTIMATED,
    }
    ledger.fold([an_exchange_on(DAY, tokens, **estimated)])
    ledger.fold([an_exchange_on(counted, reserved=0, **estimated)])
    found = store.standings([DAY, tokens, counted])
    assert [one.spent for one in found.values()] == [100, 100, 170]


@pytest.mark.parametrize(
    "end",
    [
        {"status": ExchangeStatus.CLIENT_DISCONNECTED},
        {"status": ExchangeStatus.INTERRUPTED, "error_type": "gateway_died"},
        {"status": ExchangeStatus.UPSTREAM_ERROR, "error_type": "timeout", "http_status": 504},
        {"status": ExchangeStatus.UPSTREAM_ERROR, "error_type": "protocol", "http_status": 400},
        {"status": ExchangeStatus.UPSTREAM_ERROR, "error_type": "reset", "http_status": 200},
    ],
)
def test_a_plain_answer_nobody_had_whole_is_charged_in_full(
    store: GovernanceStore, ledger: SqliteStore, end: dict[str, Any]
):
    """The provider writes it to its end and bills it; a stream ends where it is left."""
    seen: dict[str, Any] = {
        "cost_nano_usd": 5,
        "cost_quality": CostQuality.ESTIMATED,
        "usage": TokenUsage(input_uncached=5, output=0),
        "usage_quality": UsageQuality.ESTIMATED,
        **end,
    }
    tokens = WindowKey("user:ada/day/tokens", 0)
    ledger.fold([an_exchange_on(DAY, tokens, streamed=False, **seen)])
    assert [one.spent for one in store.standings([DAY, tokens]).values()] == [100, 100]
    ledger.fold([an_exchange_on(DAY, tokens, streamed=True, **seen)])
    assert [one.spent for one in store.standings([DAY, tokens]).values()] == [105, 105]


def test_a_plain_answer_that_never_began_is_charged_as_it_is_estimated(
    store: GovernanceStore, ledger: SqliteStore
):
    """A provider that breaks down before it answers has nothing to bill but what it read."""
    ledger.fold(
        [
            an_exchange_on(
                DAY,
                streamed=False,
                cost_nano_usd=5,
                cost_quality=CostQuality.ESTIMATED,
                usage=TokenUsage(input_uncached=5, output=0),
                usage_quality=UsageQuality.ESTIMATED,
                status=ExchangeStatus.UPSTREAM_ERROR,
                error_type="reset",
                http_status=502,
            )
        ]
    )
    assert standing(store, DAY).spent == 5


def test_an_answer_of_which_nothing_could_be_read_is_charged_in_full(
    store: GovernanceStore, ledger: SqliteStore
):
    unread = an_exchange_on(
        DAY,
        cost_nano_usd=5,
        cost_quality=CostQuality.ESTIMATED,
        usage=TokenUsage(input_uncached=5, output=0),
        usage_quality=UsageQuality.ESTIMATED,
    )
    ledger.fold([unread])
    assert standing(store, DAY).spent == 100


def test_pricing_anew_leaves_what_was_charged(store: GovernanceStore, ledger: SqliteStore):
    """What was decided by it stays true."""
    exchange = an_exchange_on(DAY, cost_nano_usd=60)
    ledger.fold([exchange])
    ledger.reprice([Repricing(exchange.id, 90, CostQuality.PRICED, "book 2")])
    assert standing(store, DAY).spent == 60
    assert ledger.integrity() == []


def test_charges_read_back_with_the_exchange(store: GovernanceStore, ledger: SqliteStore):
    exchange = an_exchange_on(MONTH, DAY)
    ledger.fold([exchange])
    found = ledger.exchange(exchange.id)
    assert set(found.charges) == set(exchange.charges)
    assert msgspec.structs.replace(found, charges=exchange.charges) == exchange
    assert [each.charges for each in ledger.exchanges(exchange.session_id)] == [found.charges]


def test_amounts_beyond_reason_refuse_no_exchange(store: GovernanceStore, ledger: SqliteStore):
    """The sum stays at the largest number, and the budget is spent."""
    for _ in range(3):
        ledger.fold([an_exchange_on(DAY, cost_nano_usd=2**62)])
    assert standing(store, DAY).spent == 2**63 - 1
    assert leased(store, "P", wish(DAY, 10**12, 1)) == [0]


def test_a_batch_that_cannot_be_folded_charges_nothing(store: GovernanceStore, ledger: SqliteStore):
    leased(store, "P", wish(DAY, 1_000, 400))
    bad = an_exchange_on(DAY, usage=TokenUsage(output=2**70))
    with pytest.raises((LedgerError, OverflowError)):
        ledger.fold([an_exchange_on(DAY, cost_nano_usd=60), bad], process_id="P")
    assert standing(store, DAY, "P") == Standing(0, 400, 400)


def test_a_budget_that_is_not_the_sum_of_its_charges_is_found(
    store: GovernanceStore, ledger: SqliteStore, ledger_file: Path
):
    """`ogate ledger check` says so."""
    leased(store, "P", wish(MONTH, 1_000, 10))
    ledger.fold([an_exchange_on(DAY, cost_nano_usd=n) for n in range(10)])
    assert ledger.integrity() == []
    with closing(sqlite3.connect(ledger_file)) as database, database:
        database.execute("UPDATE budget_windows SET spent = spent - 1 WHERE spent > 0")
    [finding] = ledger.integrity()
    assert "charged" in finding


@pytest.mark.parametrize("seed", range(6))
def test_spent_and_held_never_exceed_the_limit_whatever_happens(
    store: GovernanceStore, ledger: SqliteStore, seed: int
):
    """Several processes, several budgets; leases, charges, deaths and returns in any order."""
    chance = random.Random(seed)
    limits = {DAY: 5_000, MONTH: 20_000, SESSION: 3_000}
    reserved: dict[str, list[tuple[tuple[WindowKey, ...], int]]] = {"P": [], "Q": [], "R": []}
    spent = dict.fromkeys(limits, 0)
    for _ in range(400):
        process_id = chance.choice(list(reserved))
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                keys = tuple(chance.sample(list(limits), chance.randrange(1, 4)))
                needed = chance.randrange(300)
                wishes = [wish(key, limits[key], needed, needed * 2) for key in keys]
                granted = leased(store, process_id, *wishes)
                if needed and all(granted):
                    reserved[process_id].append((keys, needed))
            case 4 | 5 | 6 if reserved[process_id]:
                keys, amount = reserved[process_id].pop()
                cost = chance.randrange(amount + 1)
                exchange = an_exchange_on(*keys, reserved=amount, cost_nano_usd=cost)
                ledger.fold([exchange] * chance.choice((1, 2)), process_id=process_id)
                for key in keys:
                    spent[key] += cost
            case 7 if chance.random() < 0.2:
                reserved[process_id].clear()
                ledger.end_process(process_id)
        found = store.standings(limits)
        for key, limit in limits.items():
            assert found[key].spent == spent[key]
            assert found[key].spent + found[key].held <= limit
            for one in reserved:
                mine = sum(amount for keys, amount in reserved[one] if key in keys)
                assert standing(store, key, one).held_by_me >= mine


# A database that fails


def test_a_ledger_that_stays_locked_is_an_error_and_not_a_lease(
    ledger_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nothing is half done; afterwards all goes on."""
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.01)
    with closing(open_governance(ledger_file)) as store, closing(open_store(ledger_file)) as ledger:
        with closing(sqlite3.connect(ledger_file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for deed in (
                lambda: store.lease("P", [wish(DAY, 100, 60)]),
                lambda: store.give_back("P", {DAY: 1}),
                lambda: ledger.end_process("P"),
                lambda: store.put_policy(
                    [PolicyDocument("team", "a", "{}")], operator="ada", at_us=1
                ),
                lambda: ledger.fold([an_exchange_on(DAY)], process_id="P"),
            ):
                with pytest.raises(LedgerError):
                    deed()
            assert store.policy() == (0, [])
            assert standing(store, DAY) == Standing()
        assert leased(store, "P", wish(DAY, 100, 60)) == [60]


def test_the_marks_move_with_every_change_of_rules_and_with_nothing_else(
    store: GovernanceStore, open_again: OpenGovernance
):
    """Even, they say that nothing has changed since they were the same; a gateway believes it."""
    marks, other = store.policy_marks(), open_again()
    seen = marks[0]
    assert seen % 2 == 0
    for number in range(3):
        change = PolicyDocument("team", "a", f'{{"n":{number}}}')
        other.put_policy([change], operator="ada", at_us=number)
        assert marks[0] % 2 == 0
        assert marks[0] > seen
        seen = marks[0]
        other.put_policy([change], operator="ada", at_us=number)
        leased(other, "P", wish(DAY, 100, 1))
        other.give_back("P", {DAY: 1})
        assert marks[0] == other.policy_marks()[0] == seen


def test_a_change_of_rules_that_fails_may_have_been_one(
    store: GovernanceStore, ledger_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """Who reads them looks once more than needed; and believes the marks again."""
    marks = store.policy_marks()
    seen = marks[0]

    def fail() -> int:
        raise LedgerError("ledger-unwritable", "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "policy_revision", fail)
        with pytest.raises(LedgerError):
            store.put_policy([PolicyDocument("team", "a", "{}")], operator="ada", at_us=1)
    assert store.policy() == (0, [])
    assert marks[0] % 2 == 0
    assert marks[0] > seen


def test_rules_whose_change_could_not_be_told_are_not_changed(
    store: GovernanceStore, ledger_file: Path
):
    """Who believes the marks would not learn of it."""
    mark_file(ledger_file).mkdir()
    with pytest.raises(LedgerError):
        store.put_policy([PolicyDocument("team", "a", "{}")], operator="ada", at_us=1)
    assert store.policy() == (0, [])
    assert store.policy_marks()[0] % 2 == 1


def test_an_end_that_could_not_be_told_is_written_down_nevertheless(
    store: GovernanceStore, ledger_file: Path
):
    """Who believes the marks learns of it a little later."""
    mark_file(ledger_file).mkdir()
    with closing(open_store(ledger_file)) as ledger:
        session = a_session()
        ledger.add_session(session)
        ledger.end_session(session.id, ended_at_us=7, exit_status=3)
        assert ledger.session(session.id).exit_status == 3


def test_a_reader_sees_rules_and_budgets_and_changes_nothing(
    store: GovernanceStore, ledger_file: Path
):
    """What views open."""
    store.put_policy([PolicyDocument("team", "a", "{}")], operator="ada", at_us=1)
    leased(store, "P", wish(DAY, 100, 60))
    with closing(open_governance(ledger_file, read_only=True)) as reader:
        mark = reader.change_mark()
        assert reader.policy_marks()[0] % 2 == 1
        assert reader.policy() == store.policy()
        assert reader.standings([DAY]) == store.standings([DAY])
        assert reader.latest_windows([DAY.budget_id]) == {DAY.budget_id: 1_000}
        with pytest.raises(LedgerError):
            reader.lease("P", [wish(DAY, 100, 1)])
        store.give_back("P", {DAY: 60})
        assert reader.change_mark() != mark


def test_a_missing_ledger_has_no_rules(tmp_path: Path):
    """And looking makes none."""
    with closing(open_governance(tmp_path / "none.db", read_only=True)) as reader:
        assert reader.policy() == (0, [])
        assert reader.standings([DAY]) == {DAY: Standing()}
    assert not (tmp_path / "none.db").exists()


# Several processes


def test_processes_that_race_get_all_of_a_budget_and_no_more(ledger_file: Path):
    """Four of them, two budgets, charges in between."""
    limit, needed = 40_000, 70
    open_governance(ledger_file).close()
    with ExitStack() as children:
        processes = [
            children.enter_context(child("race", ledger_file, f"P{number}", limit, needed))
            for number in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        granted = [int(process.stdout.readline()) for process in processes]  # type: ignore[union-attr]
    assert sum(granted) == limit // needed
    with closing(open_governance(ledger_file)) as store:
        for found in store.standings(KEYS).values():
            assert limit - needed < found.spent + found.held <= limit
    with closing(sqlite3.connect(ledger_file)) as database:
        charged = database.execute("SELECT sum(amount) FROM charges WHERE window_start_us = 0")
        assert charged.fetchone()[0] == found.spent
        (exchanges,) = database.execute("SELECT count(*) FROM exchanges").fetchone()
    assert len(events_of(ledger_file, "exchange")) == exchanges
    assert findings_in(ledger_file) == []


@pytest.mark.parametrize("step", STEPS)
def test_a_process_killed_at_any_step_leaves_every_budget_right(
    ledger_file: Path, tmp_path: Path, step: str
):
    """Charged once if it was sent, and nothing held; however often it is settled."""
    folder = tmp_path / "journals"
    with child("spend", folder, ledger_file, step) as process:
        assert process.stdout is not None
        process_id, exchange_id = process.stdout.readline().decode().split()
        held = {"journal": 0, "leased": LEASED, "opened": LEASED, "finished": LEASED}
        with closing(open_governance(ledger_file)) as store:
            before = store.standings(KEYS, process_id=process_id)
        expected = held.get(step, LEASED - COST)
        expected -= 300 if step == "given_back" else 0
        expected = 0 if step in ("ended", "closed") else expected
        assert {one.held for one in before.values()} == {expected}
        with closing(open_store(ledger_file)) as ledger:
            settle_orphans(folder, ledger, unpriced)
        with closing(open_governance(ledger_file)) as store:
            assert store.standings(KEYS, process_id=process_id) == before, "it lives"
        process.kill()
        process.wait()
    # Nobody knows what a request cost that was under way.
    spent = {"journal": 0, "leased": 0, "opened": NEEDED}.get(step, COST)
    for _ in range(2):
        with closing(open_store(ledger_file)) as ledger:
            settle_orphans(folder, ledger, unpriced)
            assert ledger.recorded([exchange_id]) == ({exchange_id} if spent else set())
        with closing(open_governance(ledger_file)) as store:
            assert set(store.standings(KEYS).values()) == {Standing(spent, 0, 0)}
            assert store.lease_holders() == set()
    assert list(folder.iterdir()) == []
    assert len(events_of(ledger_file, "exchange")) == (1 if spent else 0)
    if spent:
        assert findings_in(ledger_file) == []


def test_gateways_killed_at_any_moment_leave_every_budget_right(ledger_file: Path, tmp_path: Path):
    """Two at a time, killed in the middle of whatever they do, each settled by who comes next."""
    folder = tmp_path / "journals"
    cost_of: dict[str, int | None] = {}
    for lines in (1, 2, 17, 60, 133):
        with ExitStack() as children:
            for each in [
                children.enter_context(child("serve", folder, ledger_file)) for _ in range(2)
            ]:
                assert each.stdout is not None
                said = [each.stdout.readline() for _ in range(lines)]
                each.kill()
                # What it still did and nobody read happened too; the last line may be torn.
                said += [line for line in each.stdout.read().splitlines(True) if line[-1:] == b"\n"]
                for line in said:
                    word, exchange_id, *cost = line.decode().split()
                    cost_of[exchange_id] = int(cost[0]) if word == "finished" else None
    with closing(open_store(ledger_file)) as ledger:
        settle_orphans(folder, ledger, unpriced)
        found = {each.id: each for each in ledger.exchanges("01S")}
        assert ledger.integrity() == []
    # One that was written and not told of any more may be there too.
    assert found.keys() >= cost_of.keys()
    assert len(found) <= len(cost_of) + 10
    told = {id: found[id].cost_nano_usd for id, cost in cost_of.items() if cost is not None}
    assert told == {id: cost for id, cost in cost_of.items() if cost is not None}
    spent = sum(
        NEEDED if each.cost_nano_usd is None else each.cost_nano_usd for each in found.values()
    )
    with closing(open_governance(ledger_file)) as store:
        assert set(store.standings(KEYS).values()) == {Standing(spent, 0, 0)}
        assert store.lease_holders() == set()
    assert len(events_of(ledger_file, "exchange")) == len(found)
    assert findings_in(ledger_file) == []


def test_a_lease_without_a_journal_is_returned(ledger_file: Path, tmp_path: Path):
    """Its process has ended, and could not say so."""
    with closing(open_governance(ledger_file)) as store:
        leased(store, "GONE", wish(DAY, 100, 60))
    with closing(open_store(ledger_file)) as ledger:
        settle_orphans(tmp_path / "journals", ledger, unpriced)
        assert ledger.lease_holders() == set()


def unpriced(exchange: ExchangeRecord) -> ExchangeRecord:
    return exchange


# The audit trail


def findings_in(ledger_file: Path) -> list[Finding]:
    outside = read_head(head_file(ledger_file))
    assert outside is not None
    with closing(open_audit(ledger_file)) as trail:
        seal = seal_beside(ledger_file)
        return verify(trail.events(), seal, head=trail.head(), outside=outside)


def events_of(ledger_file: Path, kind: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(ledger_file)) as database:
        found = database.execute(
            "SELECT document FROM audit_events WHERE kind = ? ORDER BY seq", (kind,)
        )
        return [json.loads(document) for (document,) in found]


def test_every_change_of_rules_is_told_with_who_and_what(store: GovernanceStore, ledger_file: Path):
    """Before and after; not what changed nothing."""
    first = PolicyDocument("team", "core", '{"budgets":[]}')
    store.put_policy([first], operator="ada", at_us=1)
    store.put_policy([first], operator="bob", at_us=2)
    store.put_policy([PolicyDocument("team", "core", None)], operator="cy", at_us=3)
    made, removed = events_of(ledger_file, "policy")
    assert made == {
        "operator": "ada",
        "kind": "team",
        "name": "core",
        "before": None,
        "after": {"budgets": []},
    }
    assert (removed["operator"], removed["before"], removed["after"]) == (
        "cy",
        {"budgets": []},
        None,
    )


def test_a_rotated_key_is_told_without_the_hash_of_its_secret(
    store: GovernanceStore, ledger_file: Path
):
    for number in (1, 2):
        text = f'{{"public_id":"p","secret_hash":"salt${number}"}}'
        store.put_policy([PolicyDocument("vkey", "ci", text)], operator="ada", at_us=number)
    made, rotated = events_of(ledger_file, "policy")
    assert made["after"]["secret_hash"] != rotated["after"]["secret_hash"]
    assert rotated["before"] == made["after"]
    assert "salt$" not in json.dumps([made, rotated])


def test_every_settled_exchange_has_one_event(
    store: GovernanceStore, ledger: SqliteStore, ledger_file: Path
):
    """However often it is folded; an open one has none yet."""
    ledger.add_session(a_session(id="01S", user="ada"))
    exchange = an_exchange(
        session_id="01S",
        virtual_key="ci",
        team="core",
        request_hash="aa",
        answer_hash="bb",
        charges=(Charge(*DAY, "usd", 5),),
    )
    ledger.fold([an_open_exchange(id=exchange.id)])
    ledger.fold([exchange, exchange])
    ledger.fold([exchange])
    [event] = events_of(ledger_file, "exchange")
    assert event == {
        "exchange": exchange.id,
        "session": "01S",
        "user": "ada",
        "virtual_key": "ci",
        "team": "core",
        "operation": "generate",
        "provider": "practice",
        "model": "scripted",
        "response_model": "scripted",
        "started_at_us": exchange.started_at_us,
        "duration_us": exchange.duration_us,
        "status": "completed",
        "http_status": 200,
        "input_tokens": 114,
        "output_tokens": 17,
        "usage_quality": "reported",
        "cost_nano_usd": 1_234_567,
        "cost_quality": "priced",
        "request_hash": "aa",
        "answer_hash": "bb",
    }


def test_a_refusal_is_told_with_the_rule_that_said_so(
    store: GovernanceStore, ledger: SqliteStore, ledger_file: Path
):
    decisions = [{"rule": "budget", "outcome": "deny", "code": "budget-exceeded", "message": "no"}]
    refused = an_exchange(
        status=ExchangeStatus.DENIED, denial="budget-exceeded", decisions=json.dumps(decisions)
    )
    ledger.fold([refused])
    [event] = events_of(ledger_file, "refusal")
    assert (event["denial"], event["decisions"]) == ("budget-exceeded", decisions)
    assert events_of(ledger_file, "exchange") == []


def test_a_better_known_end_is_told_too(
    store: GovernanceStore, ledger: SqliteStore, ledger_file: Path
):
    guessed = an_exchange(status=ExchangeStatus.INTERRUPTED)
    true = msgspec.structs.replace(guessed, status=ExchangeStatus.COMPLETED)
    for exchange in (guessed, true, guessed, true):
        ledger.fold([exchange])
    first, second = events_of(ledger_file, "exchange")
    assert "replaces" not in first
    assert (second["status"], second["replaces"]) == ("completed", "interrupted")


def test_a_fold_that_fails_leaves_no_event(
    store: GovernanceStore, ledger: SqliteStore, ledger_file: Path
):
    with pytest.raises((LedgerError, OverflowError)):
        ledger.fold([an_exchange(), an_exchange(usage=TokenUsage(output=2**70))])
    assert events_of(ledger_file, "exchange") == []
