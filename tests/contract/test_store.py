"""What every ledger database promises, one suite for all engines."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from msgspec.structs import replace

from opencode_gate.core.errors import LedgerError, UsageError
from opencode_gate.core.semconv import ConversationKind, CostQuality, ExchangeStatus, Operation
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.exchange_query import ExchangeQuery
from opencode_gate.ledger.records import Annotation, ExchangeRecord, Repricing
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.store import Store
from opencode_gate.ledger.totals import GROUPINGS, UsageQuery, total_of
from tests.support.ledger_records import (
    NOON_US,
    a_conversation,
    a_session,
    an_exchange,
    an_open_exchange,
    random_exchange,
)

DAY_US = 86_400_000_000

OpenStore = Callable[[], Store]


@pytest.fixture(params=["sqlite"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the ledger of this test, once more each time."""
    opened: list[Store] = []

    def sqlite() -> Store:
        opened.append(open_store(tmp_path / "data" / "ledger.db"))
        return opened[-1]

    yield {"sqlite": sqlite}[request.param]
    for store in opened:
        store.close()


@pytest.fixture
def store(open_again: OpenStore) -> Store:
    return open_again()


def test_a_session_reads_back_equal(store: Store, open_again: OpenStore):
    """Every field survives, also for another connection."""
    session = a_session(ended_at_us=NOON_US + 1, exit_status=3)
    bare = a_session(
        agent_version=None, repository=None, branch=None, commit=None, started_at_us=NOON_US - 1
    )
    store.add_session(session)
    store.add_session(bare)
    assert open_again().session(session.id) == session
    assert open_again().session(bare.id) == bare


def test_adding_a_session_again_keeps_its_end(store: Store):
    """A late second start, out of a journal, does not reopen it."""
    session = a_session()
    store.add_session(session)
    store.end_session(session.id, ended_at_us=NOON_US + 5, exit_status=0)
    store.add_session(session)
    assert store.session(session.id) == replace(session, ended_at_us=NOON_US + 5, exit_status=0)


def test_a_known_exit_status_is_not_replaced_by_an_unknown_one(store: Store):
    """The launcher saw the end, whoever settles afterwards did not."""
    session = a_session()
    store.add_session(session)
    store.end_session(session.id, ended_at_us=1, exit_status=None)
    store.end_session(session.id, ended_at_us=2, exit_status=7)
    store.end_session(session.id, ended_at_us=3, exit_status=None)
    assert store.session(session.id) == replace(session, ended_at_us=2, exit_status=7)


def test_a_session_is_found_by_prefix_short_form_and_last(store: Store):
    """All the ways a person names a session."""
    first = a_session(id="01AAAAAAAAAAAAAAAAAAAAAA01", started_at_us=NOON_US)
    second = a_session(id="01AABBBBBBBBBBBBBBBBBBBB02", started_at_us=NOON_US + 1)
    third = a_session(id="01AACCCCCCCCCCCCCCCCCCCC03", started_at_us=NOON_US - 1)
    for session in (first, second, third):
        store.add_session(session)
    assert store.session("last") == second
    assert store.session("01AAA") == first
    assert store.session("01aab") == second
    assert store.session("01AA…03") == third
    assert store.session(third.id) == third


@pytest.mark.parametrize("asked", ["01AA", "", "01AA…", "0", "%", "01AAA_"])
def test_an_ambiguous_or_unknown_session_is_an_error_that_lists_what_matches(
    store: Store, asked: str
):
    """Nothing is guessed; wildcards of the database mean nothing."""
    for tail in "ABCDEFGH":
        store.add_session(a_session(id=f"01AA{tail * 22}"))
    with pytest.raises(UsageError) as caught:
        store.session(asked)
    assert caught.value.code == "no-such-session"
    is_ambiguous = not set(asked) & set("%_")
    assert len(caught.value.details) == (6 if is_ambiguous else 0)


def test_what_is_recorded_is_known_by_id(store: Store):
    """Of those asked for, and no other."""
    first, second = an_exchange(), an_exchange()
    store.fold([first, second])
    assert store.recorded([first.id, "01NOBODY"]) == {first.id}
    assert store.recorded([]) == set()


def test_a_snapshot_is_of_one_moment(store: Store, open_again: OpenStore):
    """What another process commits meanwhile is seen after it."""
    reader = open_again()
    with reader.snapshot():
        assert reader.find(ExchangeQuery()) == []
        store.fold([an_exchange()])
        assert reader.find(ExchangeQuery()) == []
        assert reader.usage(UsageQuery())[0].totals.requests == 0
    assert len(reader.find(ExchangeQuery())) == 1


def test_sessions_are_looked_up_by_their_ids(store: Store):
    """Those that were never recorded are left out."""
    first, second, third = a_session(), a_session(), a_session()
    for session in (first, second, third):
        store.add_session(session)
    found = store.sessions_of([first.id, third.id, "01NOBODY"])
    assert found == {first.id: first, third.id: third}


def test_an_exchange_is_found_by_prefix_short_form_and_last(store: Store):
    """All the ways a person names a call; with its parts."""
    first = an_exchange(id="01AAAAAAAAAAAAAAAAAAAAAA01", parts=b"x" * 12)
    second = an_exchange(id="01AABBBBBBBBBBBBBBBBBBBB02", started_at_us=NOON_US + 1)
    store.fold([first, second])
    assert store.exchange("last") == second
    assert store.exchange("01aaa") == first
    assert store.exchange("01AA…02") == second
    assert store.exchange(first.id) == first
    for asked in ("01AA", "01AC", "%"):
        with pytest.raises(UsageError) as caught:
            store.exchange(asked)
        assert caught.value.code == "no-such-call"


def test_the_last_exchange_of_an_empty_ledger_is_an_error(store: Store):
    """Not a crash."""
    with pytest.raises(UsageError) as caught:
        store.exchange("last")
    assert caught.value.code == "no-such-call"


def test_the_last_session_of_an_empty_ledger_is_an_error(store: Store):
    """With the command that makes one."""
    with pytest.raises(UsageError) as caught:
        store.session("last")
    assert caught.value.code == "no-such-session"
    assert caught.value.hint == "ogate run"


def test_sessions_come_newest_first_within_bounds(store: Store):
    """The start counts, the end does not: a span is half open."""
    sessions = [a_session(started_at_us=NOON_US + n) for n in range(6)]
    for session in sessions:
        store.add_session(session)
    assert store.sessions() == sessions[::-1]
    assert store.sessions(limit=2) == [sessions[5], sessions[4]]
    found = store.sessions(since_us=NOON_US + 1, until_us=NOON_US + 3)
    assert found == [sessions[2], sessions[1]]


def test_conversations_keep_what_was_known(store: Store):
    """An update without a title does not take the title away."""
    known = a_conversation(
        "01S",
        parent_id="ses_0",
        kind=ConversationKind.SUBAGENT,
        agent_name="explore",
        directory="/home/ada/engine",
    )
    store.put_conversations([known, a_conversation("01OTHER")])
    store.put_conversations(
        [replace(known, title=None, parent_id=None, agent_name=None, directory=None)]
    )
    assert store.conversations("01S") == [known]
    store.put_conversations([replace(known, title="Better", kind=ConversationKind.OTHER)])
    assert store.conversations("01S") == [
        replace(known, title="Better", kind=ConversationKind.OTHER)
    ]


def test_any_exchange_reads_back_equal(store: Store, open_again: OpenStore):
    """Every field, known or unknown, zero or large."""
    chance = random.Random(1)
    exchanges = [random_exchange(chance, session_id="01S") for _ in range(200)]
    store.fold(exchanges)
    expected = sorted(exchanges, key=lambda exchange: (exchange.started_at_us, exchange.id))
    assert open_again().exchanges("01S") == expected


def test_folding_again_changes_nothing(store: Store):
    """A journal may be folded twice."""
    exchanges = [an_exchange() for _ in range(3)]
    store.fold(exchanges)
    store.fold(exchanges)
    store.fold(exchanges[:1])
    assert store.exchanges("01SESSION") == exchanges


ENDS = [status for status in ExchangeStatus if status not in ("open", "interrupted")]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("lesser", [ExchangeStatus.OPEN, ExchangeStatus.INTERRUPTED])
def test_a_seen_end_outlives_a_lesser_one(
    store: Store, end: ExchangeStatus, lesser: ExchangeStatus
):
    """Whatever order they come in."""
    ended = an_exchange(status=end)
    unfinished = an_open_exchange(id=ended.id, status=lesser)
    store.fold([unfinished])
    assert store.exchanges("01SESSION") == [unfinished]
    store.fold([ended])
    store.fold([unfinished])
    assert store.exchanges("01SESSION") == [ended]


def test_an_interrupted_exchange_is_not_reopened(store: Store):
    """Settled is settled."""
    settled = an_exchange(status=ExchangeStatus.INTERRUPTED)
    store.fold([settled])
    store.fold([an_open_exchange(id=settled.id)])
    assert store.exchanges("01SESSION") == [settled]


def test_a_batch_is_folded_whole_or_not_at_all(store: Store):
    """A value no database takes leaves nothing of its batch behind."""
    good, bad = an_exchange(), an_exchange(usage=TokenUsage(output=2**70))
    with pytest.raises(OverflowError):
        store.fold([good, bad])
    assert store.exchanges("01SESSION") == []
    store.fold([good])
    assert store.exchanges("01SESSION") == [good]


def test_an_exchange_needs_no_session_row(store: Store):
    """A session that could not be recorded does not take its exchanges with it."""
    store.fold([an_exchange(session_id="01NOBODY")])
    [row] = store.usage(UsageQuery(by=("session", "project", "user")))
    assert row.key == {"session": "01NOBODY", "project": None, "user": None}


def test_usage_of_nothing_is_one_row_of_unknowns(store: Store):
    """Without groups there is always a total; with groups there are none."""
    [row] = store.usage(UsageQuery())
    assert row.key == {}
    assert row.totals == total_of([])
    assert store.usage(UsageQuery(by=("day", "model"))) == []


def test_usage_is_the_total_of_the_records_of_each_group(store: Store):
    """SQL and Python follow the same rules, for every grouping and pair of groupings."""
    chance = random.Random(2)
    exchanges = [random_exchange(chance) for _ in range(400)]
    sessions = {
        id: a_session(id=id, user=user, project=project, branch=branch)
        for id, user, project, branch in (
            ("01S1", "ada", "engine", "main"),
            ("01S2", "ada", "engine", None),
            ("01S3", "bob", "loom", "main"),
        )
    }
    for session in sessions.values():
        store.add_session(session)
    store.fold(exchanges)
    zone = ZoneInfo("America/New_York")

    def key(exchange: ExchangeRecord, name: str) -> str | None:
        session = sessions[exchange.session_id]
        model = exchange.request_model or exchange.response_model
        return {
            "model": f"{exchange.provider_name}/{model}" if model else None,
            "provider": exchange.provider_name,
            "key": exchange.credential_name,
            "session": exchange.session_id,
            "project": session.project,
            "branch": session.branch,
            "day": datetime.fromtimestamp(exchange.started_at_us / 1e6, zone).date().isoformat(),
            "user": session.user,
            "kind": exchange.kind.value,
            "repository": session.repository,
            "commit": session.commit,
            "agent": session.agent,
            "mode": exchange.mode,
            "conversation": exchange.conversation_id,
            "vkey": exchange.virtual_key,
            "team": exchange.team,
            "customer": exchange.customer,
            "hour": f"{datetime.fromtimestamp(exchange.started_at_us / 1e6, zone):%H}",
        }[name]

    span = (NOON_US - 50 * DAY_US, NOON_US + 50 * DAY_US)
    within = [exchange for exchange in exchanges if span[0] <= exchange.started_at_us < span[1]]
    assert 100 < len(within) < 400
    groupings = [
        (),
        *((one,) for one in GROUPINGS),
        ("day", "model"),
        ("user", "branch", "kind"),
        ("hour", "mode"),
        ("customer", "team", "vkey", "model"),
    ]
    for by in groupings:
        groups: dict[tuple[str | None, ...], list[ExchangeRecord]] = defaultdict(list)
        for exchange in within:
            if exchange.status is not ExchangeStatus.DENIED:
                groups[tuple(key(exchange, name) for name in by)].append(exchange)
        query = UsageQuery(since_us=span[0], until_us=span[1], by=by, time_zone="America/New_York")
        found = {tuple(row.key.values()): row.totals for row in store.usage(query)}
        assert found == {group: total_of(records) for group, records in groups.items()}, by


ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Havana")


@pytest.mark.parametrize("seed", range(8))
def test_usage_stays_the_total_of_the_records_whatever_is_done_to_them(store: Store, seed: int):
    """Rows that come, end, are told more of and priced anew; any span, zone and quick grouping.

    A ledger may keep sums; they may never differ from the rows.
    """
    chance = random.Random(seed)
    around = NOON_US + chance.randrange(DAY_US)
    rows = [
        random_exchange(chance, started_at_us=around + chance.randrange(3 * DAY_US))
        for _ in range(150)
    ]
    store.fold(rows)
    store.fold(
        msgspec.structs.replace(random_exchange(chance), id=row.id, started_at_us=row.started_at_us)
        for row in chance.sample(rows, 60)
    )
    store.annotate(
        Annotation(
            exchange_id=row.id,
            mode=chance.choice(("plan", "explore")),
            kind=chance.choice((None, *ConversationKind)),
        )
        for row in chance.sample(rows, 60)
    )
    qualities = (CostQuality.PRICED, CostQuality.ESTIMATED)
    store.reprice(
        Repricing(row.id, chance.choice((None, 0, 7, 10**9)), chance.choice(qualities), "book 2")
        for row in chance.sample(rows, 60)
    )
    known = [each for id in ("01S1", "01S2", "01S3") for each in store.exchanges(id)]
    assert len(known) == len(rows)
    counted = [each for each in known if each.status is not ExchangeStatus.DENIED]
    for _ in range(12):
        since_us = around + chance.randrange(-DAY_US, 3 * DAY_US)
        until_us = since_us + chance.choice((1, 10**9, DAY_US, DAY_US, 3 * DAY_US))
        since_us, until_us = (
            bound - bound % chance.choice((1, 10**6, 9 * 10**8, DAY_US))
            for bound in (since_us, until_us)
        )
        by = chance.choice(((), ("model",), ("kind", "mode"), ("day",), ("provider", "hour")))
        zone_name = chance.choice(ZONES)
        zone = ZoneInfo(zone_name)
        groups: dict[tuple[str | None, ...], list[ExchangeRecord]] = defaultdict(list)
        for each in counted:
            if since_us <= each.started_at_us < until_us:
                local = datetime.fromtimestamp(each.started_at_us / 1e6, zone)
                model = each.request_model or each.response_model
                values = {
                    "model": f"{each.provider_name}/{model}" if model else None,
                    "provider": each.provider_name,
                    "kind": each.kind.value,
                    "mode": each.mode,
                    "day": local.date().isoformat(),
                    "hour": f"{local:%H}",
                }
                groups[tuple(values[name] for name in by)].append(each)
        expected = {key: total_of(some) for key, some in groups.items()}
        if not by:
            expected = {(): total_of(groups[()])}
        query = UsageQuery(since_us=since_us, until_us=until_us, by=by, time_zone=zone_name)
        found = store.usage(query)
        assert {tuple(row.key.values()): row.totals for row in found} == expected
        keys = [[(value is not None, value) for value in row.key.values()] for row in found]
        assert keys == sorted(keys)
    assert store.integrity() == []


def test_counts_beyond_reason_refuse_no_exchange(store: Store):
    """A provider that reports nonsense twice must not stop the folding for ever."""
    nonsense = [an_exchange(usage=TokenUsage(output=2**62)) for _ in range(3)]
    store.fold(nonsense)
    assert store.exchanges("01SESSION") == nonsense


def test_usage_can_be_asked_of_some_sessions_only(store: Store):
    """Of those named and of no other, grouped or not; of none there is nothing."""
    chance = random.Random(3)
    exchanges = [random_exchange(chance) for _ in range(60)]
    store.fold(exchanges)
    of_two = [each for each in exchanges if each.session_id in ("01S1", "01S3")]
    [row] = store.usage(UsageQuery(session_ids=("01S1", "01S3", "01S9")))
    assert row.totals == total_of(of_two)
    rows = store.usage(UsageQuery(session_ids=("01S1", "01S3"), by=("session",)))
    assert [row.key["session"] for row in rows] == ["01S1", "01S3"]
    assert rows[0].totals == total_of(each for each in of_two if each.session_id == "01S1")
    [row] = store.usage(UsageQuery(session_ids=()))
    assert row.totals == total_of([])


def test_an_annotation_adds_and_takes_nothing_away(store: Store):
    """What is not told stays as it was; an exchange that is not here is passed over."""
    exchange = an_exchange(kind=ConversationKind.SUBAGENT)
    store.fold([exchange])
    store.annotate([Annotation(exchange_id=exchange.id), Annotation(exchange_id="01NOBODY")])
    assert store.exchanges("01SESSION") == [exchange]
    store.annotate([Annotation(exchange_id=exchange.id, prompt_id="msg_1", mode="plan")])
    store.annotate([Annotation(exchange_id=exchange.id, kind=ConversationKind.TITLE)])
    annotated = msgspec.structs.replace(
        exchange, prompt_id="msg_1", mode="plan", kind=ConversationKind.TITLE
    )
    assert store.exchanges("01SESSION") == [annotated]


def test_an_annotation_names_only_a_conversation_that_was_not_known(store: Store):
    """What the request said itself stays."""
    named, nameless = an_exchange(), an_exchange(conversation_id=None)
    store.fold([named, nameless])
    store.annotate(
        [Annotation(exchange_id=each.id, conversation_id="ses_9") for each in (named, nameless)]
    )
    found = {each.id: each.conversation_id for each in store.exchanges("01SESSION")}
    assert found == {named.id: "ses_1", nameless.id: "ses_9"}


def test_the_last_comparison_of_a_session_is_kept(store: Store):
    """And only that session's."""
    assert store.reconciliation("01SESSION") is None
    store.put_reconciliation("01SESSION", '{"first":1}')
    store.put_reconciliation("01SESSION", '{"last":1}')
    assert store.reconciliation("01SESSION") == '{"last":1}'
    assert store.reconciliation("01OTHER") is None


def test_an_annotation_outlives_a_second_folding(store: Store):
    """A journal that is folded again knows less than the agent told since."""
    exchange = an_exchange()
    store.fold([exchange])
    store.annotate(
        [Annotation(exchange_id=exchange.id, prompt_id="msg_1", kind=ConversationKind.TITLE)]
    )
    store.fold([exchange])
    assert store.exchanges("01SESSION") == [
        msgspec.structs.replace(exchange, prompt_id="msg_1", kind=ConversationKind.TITLE)
    ]


def test_an_annotation_outlives_the_true_end_of_an_interrupted_exchange(store: Store):
    """The end replaces the guess, the prompt it belongs to stays known."""
    settled = an_exchange(status=ExchangeStatus.INTERRUPTED)
    store.fold([settled])
    store.annotate([Annotation(exchange_id=settled.id, prompt_id="msg_1", mode="build")])
    store.fold([msgspec.structs.replace(settled, status=ExchangeStatus.COMPLETED)])
    [found] = store.exchanges("01SESSION")
    assert (found.status, found.prompt_id, found.mode) == ("completed", "msg_1", "build")


def test_repricing_keeps_the_amount_first_counted(store: Store):
    """However often it is done; the same amount again changes nothing."""
    exchange = an_exchange(cost_nano_usd=5, price_source="book 1")
    store.fold([exchange])
    store.reprice([Repricing(exchange.id, 5, CostQuality.PRICED, "book 1")])
    assert store.exchanges("01SESSION") == [exchange]
    for cost_nano_usd in (7, 9):
        store.reprice([Repricing(exchange.id, cost_nano_usd, CostQuality.PRICED, "override")])
    assert store.exchanges("01SESSION") == [
        msgspec.structs.replace(
            exchange,
            cost_nano_usd=9,
            priced_cost_nano_usd=9,
            price_source="override",
            superseded_cost_nano_usd=5,
            superseded_price_source="book 1",
        )
    ]
    [row] = store.usage(UsageQuery())
    assert row.totals.cost_nano_usd == 9


def test_repricing_remembers_that_there_was_no_amount_at_first(store: Store):
    """Unknown is kept as unknown, not as the amount of a later pricing."""
    exchange = an_exchange(cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN, price_source=None)
    store.fold([exchange])
    for cost_nano_usd in (7, 9):
        store.reprice([Repricing(exchange.id, cost_nano_usd, CostQuality.ESTIMATED, "override")])
    [found] = store.exchanges("01SESSION")
    assert (found.cost_nano_usd, found.cost_quality) == (9, CostQuality.ESTIMATED)
    assert (found.superseded_cost_nano_usd, found.superseded_price_source) == (None, "none")


def test_repricing_leaves_a_reported_cost_in_force(store: Store):
    """The price book's word stands beside it."""
    exchange = an_exchange(
        cost_nano_usd=5,
        reported_cost_nano_usd=5,
        priced_cost_nano_usd=4,
        cost_quality=CostQuality.REPORTED,
        price_source="provider",
    )
    store.fold([exchange])
    store.reprice([Repricing(exchange.id, 8, CostQuality.PRICED, "override")])
    assert store.exchanges("01SESSION") == [
        msgspec.structs.replace(exchange, priced_cost_nano_usd=8)
    ]


def test_repricing_brings_what_the_cache_saved(store: Store):
    """At the new prices; beside a reported cost, too."""
    priced = an_exchange(cost_nano_usd=5, cache_saved_nano_usd=3)
    reported = an_exchange(
        cost_nano_usd=5, cost_quality=CostQuality.REPORTED, cache_saved_nano_usd=3
    )
    store.fold([priced, reported])
    store.reprice(
        [
            Repricing(priced.id, 8, CostQuality.PRICED, "override", 11),
            Repricing(reported.id, 8, CostQuality.REPORTED, "provider", 12),
        ]
    )
    saved = {row.id: row.cache_saved_nano_usd for row in store.exchanges("01SESSION")}
    assert saved == {priced.id: 11, reported.id: 12}


def test_repricing_outlives_a_second_folding(store: Store):
    """A journal that is folded again does not bring the old price back."""
    exchange = an_exchange(cost_nano_usd=5)
    store.fold([exchange])
    store.reprice([Repricing(exchange.id, 7, CostQuality.PRICED, "override")])
    store.fold([exchange])
    [found] = store.exchanges("01SESSION")
    assert found.cost_nano_usd == 7


def test_a_repricing_is_whole_or_not_at_all(store: Store):
    """A value no database takes leaves every amount as it was."""
    exchanges = [an_exchange(cost_nano_usd=5), an_exchange(cost_nano_usd=6)]
    store.fold(exchanges)
    with pytest.raises(OverflowError):
        store.reprice(
            [
                Repricing(exchanges[0].id, 7, CostQuality.PRICED, "override"),
                Repricing(exchanges[1].id, 2**70, CostQuality.PRICED, "override"),
            ]
        )
    assert store.exchanges("01SESSION") == exchanges


def test_a_tool_set_reads_back_and_stays(store: Store):
    """It is named by its hash: the same hash is the same set."""
    store.put_tool_set("aa", {"glob": 512, "read": 99})
    store.put_tool_set("aa", {"glob": 1})
    store.put_tool_set("bb", {"glob": 7})
    assert store.tool_sets(["aa", "cc"]) == {"aa": {"glob": 512, "read": 99}}


FOUND_BY = [
    (lambda each: each.provider_name == "openai", {"provider_name": "openai"}),
    (lambda each: "m-2" in (each.request_model, each.response_model), {"model": "m-2"}),
    (
        lambda each: (
            each.provider_name == "anthropic"
            and (each.request_model or each.response_model) == "org/m:3"
        ),
        {"model": "anthropic/org/m:3"},
    ),
    (lambda each: each.credential_name == "work", {"credential_name": "work"}),
    (lambda each: each.virtual_key == "ada's", {"virtual_key": "ada's"}),
    (lambda each: each.team == "core", {"team": "core"}),
    (lambda each: each.customer == "acme", {"customer": "acme"}),
    (lambda each: each.session_id == "01S2", {"session_id": "01S2"}),
    (lambda each: each.conversation_id == "ses_a", {"conversation_id": "ses_a"}),
    (
        lambda each: each.status in ("denied", "open"),
        {"statuses": (ExchangeStatus.DENIED, ExchangeStatus.OPEN)},
    ),
    (
        lambda each: each.status in ("completed", "open"),
        {"statuses": (ExchangeStatus.COMPLETED, ExchangeStatus.OPEN)},
    ),
    (lambda each: each.error_type == "connect", {"error": "connect"}),
    (lambda each: each.denial == "no-route", {"error": "no-route"}),
    (lambda each: each.http_status == 429, {"error": "429"}),
    (lambda each: (each.cost_nano_usd or 0) >= 5 * 10**9, {"min_cost_nano_usd": 5 * 10**9}),
    (
        lambda each: each.cost_nano_usd is not None and each.cost_nano_usd <= 5 * 10**9,
        {"max_cost_nano_usd": 5 * 10**9},
    ),
    (lambda each: each.started_at_us >= NOON_US, {"since_us": NOON_US}),
    (lambda each: each.started_at_us < NOON_US, {"until_us": NOON_US}),
    (
        lambda each: each.provider_name == "openai" and each.status == "open",
        {"provider_name": "openai", "statuses": (ExchangeStatus.OPEN,)},
    ),
    (lambda each: True, {}),
]


@pytest.mark.parametrize(("holds", "conditions"), FOUND_BY, ids=lambda each: str(each)[:60])
def test_exchanges_are_found_by_each_condition(
    store: Store, holds: Callable[[ExchangeRecord], bool], conditions: dict[str, Any]
):
    """Latest first, all of those it holds for and no other, without their parts."""
    chance = random.Random(4)
    exchanges = [random_exchange(chance) for _ in range(300)]
    store.fold(exchanges)
    expected = [msgspec.structs.replace(each, parts=None) for each in exchanges if holds(each)]
    expected.sort(key=lambda each: (each.started_at_us, each.id), reverse=True)
    assert expected
    assert store.find(ExchangeQuery(**conditions)) == expected


def test_pages_of_what_is_found_join_without_gap_or_overlap(store: Store):
    """Also where several exchanges started in the same microsecond."""
    store.fold([an_exchange(started_at_us=NOON_US + n // 4) for n in range(11)])
    everything = store.find(ExchangeQuery())
    pages: list[ExchangeRecord] = []
    while page := store.find(
        ExchangeQuery(limit=3, before=(pages[-1].started_at_us, pages[-1].id) if pages else None)
    ):
        assert len(page) <= 3
        pages += page
    assert pages == everything


def test_arrivals_are_what_was_recorded_since_in_the_order_it_was(
    store: Store, open_again: OpenStore
):
    """A long answer that began earlier and ends now is new; nothing comes twice."""
    reader = open_again()
    old = an_exchange(started_at_us=NOON_US)
    store.fold([old])
    found, mark = reader.arrivals(ExchangeQuery(), after=-1)
    assert found == []
    early, late = an_exchange(started_at_us=NOON_US - 9), an_exchange(started_at_us=NOON_US + 9)
    other = an_exchange(provider_name="other")
    store.fold([late])
    store.fold([other, early])
    found, next_mark = reader.arrivals(ExchangeQuery(provider_name="practice"), after=mark)
    assert found == [late, early]
    store.fold([late])
    assert reader.arrivals(ExchangeQuery(), after=next_mark) == ([], next_mark)
    assert reader.arrivals(ExchangeQuery(), after=0)[0] == [old, late, other, early]


def test_retired_parts_are_gone_and_nothing_else_is(store: Store):
    """Of what started before the instant; the later keep theirs."""
    old = an_exchange(started_at_us=NOON_US - 1, parts=b"x" * 24)
    bare = an_exchange(started_at_us=NOON_US - 1)
    fresh = an_exchange(started_at_us=NOON_US, parts=b"y" * 12)
    store.fold([old, bare, fresh])
    assert store.retire(NOON_US) == 1
    assert store.retire(NOON_US) == 0
    assert store.exchanges("01SESSION") == [msgspec.structs.replace(old, parts=None), bare, fresh]


def test_a_backup_is_a_ledger_of_its_own(store: Store, tmp_path: Path):
    """Whole, for its owner alone, and apart from what is recorded later."""
    session, exchange = a_session(), an_exchange(parts=b"x" * 12)
    store.add_session(session)
    store.fold([exchange])
    copy = tmp_path / "copy.db"
    store.backup(copy)
    store.fold([an_exchange()])
    assert copy.stat().st_mode & 0o777 == 0o600
    restored = open_store(copy)
    assert restored.sessions() == [session]
    assert restored.exchanges("01SESSION") == [exchange]
    assert restored.integrity() == []
    restored.close()


def test_a_backup_replaces_no_file(store: Store, tmp_path: Path):
    """Least of all an older backup."""
    kept = tmp_path / "kept.db"
    kept.write_text("older")
    with pytest.raises(LedgerError) as caught:
        store.backup(kept)
    assert caught.value.code == "ledger-unwritable"
    assert kept.read_text() == "older"


def test_a_backup_that_cannot_be_made_is_not_put_down_to_the_ledger(store: Store, tmp_path: Path):
    """The ledger is well; what is wrong is the place for the copy."""
    with pytest.raises(LedgerError) as caught:
        store.backup(tmp_path / "nowhere" / "copy.db")
    assert caught.value.code == "ledger-unwritable"
    assert "the ledger" not in caught.value.message
    assert "OGATE_HOME" not in str(caught.value.hint)


def test_vacuum_gives_space_back_and_keeps_every_row(store: Store, tmp_path: Path):
    """What was retired no longer fills the disk."""
    exchanges = [an_exchange(parts=b"x" * 6000) for _ in range(200)]
    store.fold(exchanges)
    store.vacuum()
    full = store_bytes(tmp_path)
    store.retire(NOON_US + 1)
    store.vacuum()
    assert store_bytes(tmp_path) < full / 3
    assert store.exchanges("01SESSION") == [
        msgspec.structs.replace(each, parts=None) for each in exchanges
    ]


def store_bytes(folder: Path) -> int:
    """The size of a ledger on disk with all its files."""
    return sum(file.stat().st_size for file in (folder / "data").iterdir())


def test_usage_bounds_are_half_open(store: Store):
    """The first microsecond counts, the last does not."""
    store.fold([an_exchange(started_at_us=NOON_US + n) for n in range(5)])
    [row] = store.usage(UsageQuery(since_us=NOON_US + 1, until_us=NOON_US + 3))
    assert row.totals.requests == 2


@pytest.mark.parametrize(
    ("zone", "instant", "day"),
    [
        ("UTC", "2026-11-21T00:00:00+00:00", "2026-11-21"),
        ("UTC", "2026-11-20T23:59:59.999999+00:00", "2026-11-20"),
        ("Asia/Kathmandu", "2026-11-20T18:15:00+00:00", "2026-11-21"),
        ("Asia/Kathmandu", "2026-11-20T18:14:59+00:00", "2026-11-20"),
        # The clocks go back: 2026-10-25 has 25 hours in Berlin.
        ("Europe/Berlin", "2026-10-24T22:00:00+00:00", "2026-10-25"),
        ("Europe/Berlin", "2026-10-25T22:59:59+00:00", "2026-10-25"),
        ("Europe/Berlin", "2026-10-25T23:00:00+00:00", "2026-10-26"),
        # The clocks go forward: 2026-03-29 has 23.
        ("Europe/Berlin", "2026-03-28T22:59:59+00:00", "2026-03-28"),
        ("Europe/Berlin", "2026-03-28T23:00:00+00:00", "2026-03-29"),
        ("Europe/Berlin", "2026-03-29T21:59:59+00:00", "2026-03-29"),
        ("Europe/Berlin", "2026-03-29T22:00:00+00:00", "2026-03-30"),
        # Here they change at midnight itself: 2026-03-08 begins at one o'clock.
        ("America/Havana", "2026-03-08T04:59:59+00:00", "2026-03-07"),
        ("America/Havana", "2026-03-08T05:00:00+00:00", "2026-03-08"),
        ("America/Havana", "2026-11-01T03:59:59+00:00", "2026-10-31"),
        ("America/Havana", "2026-11-01T04:30:00+00:00", "2026-11-01"),
        ("America/Havana", "2026-11-01T05:30:00+00:00", "2026-11-01"),
    ],
)
def test_a_day_is_the_local_one(store: Store, zone: str, instant: str, day: str):
    """Also on the days the clocks change."""
    started = datetime.fromisoformat(instant)
    started_at_us = round(started.timestamp() * 1e6)
    store.fold([an_exchange(started_at_us=started_at_us)])
    [row] = store.usage(UsageQuery(by=("day",), time_zone=zone))
    assert row.key == {"day": day}
    assert row.totals.requests == 1


def test_a_total_knows_what_it_does_not_know(store: Store):
    """Known costs are summed, unknown ones counted, and the worst quality is told."""
    store.fold(
        [
            an_exchange(cost_nano_usd=5, cost_quality=CostQuality.REPORTED),
            an_exchange(cost_nano_usd=7, cost_quality=CostQuality.PRICED),
        ]
    )
    [row] = store.usage(UsageQuery())
    assert (row.totals.cost_nano_usd, row.totals.cost_quality) == (12, CostQuality.PRICED)
    store.fold([an_exchange(cost_nano_usd=None, cost_quality=CostQuality.UNKNOWN)])
    [row] = store.usage(UsageQuery())
    assert (row.totals.cost_nano_usd, row.totals.cost_quality) == (12, CostQuality.UNKNOWN)
    assert (row.totals.requests, row.totals.unknown_cost_requests) == (3, 1)


def test_listings_and_refusals_are_not_unknown_costs(store: Store):
    """Listing models and a 401 are billed by nobody."""
    unpriced = {"cost_nano_usd": None, "cost_quality": CostQuality.UNKNOWN, "usage": TokenUsage()}
    store.fold(
        [
            an_exchange(cost_nano_usd=5),
            an_exchange(operation=Operation.LIST_MODELS, **unpriced),
            an_exchange(status=ExchangeStatus.DENIED, http_status=402, **unpriced),
            an_exchange(status=ExchangeStatus.UPSTREAM_ERROR, http_status=401, **unpriced),
        ]
    )
    [row] = store.usage(UsageQuery())
    assert (row.totals.requests, row.totals.unknown_cost_requests) == (2, 0)
    assert (row.totals.cost_nano_usd, row.totals.cost_quality) == (5, CostQuality.PRICED)


def test_a_sound_ledger_has_no_findings(store: Store):
    """The check itself works."""
    store.fold([an_exchange()])
    assert store.integrity() == []


def test_tools_offered_are_summed_by_session_set_and_model(store: Store):
    """What a provider refused, or ogate did, was read by no model."""
    usage = TokenUsage(input_uncached=100, cache_read=900, output=7)
    offered = {"session_id": "01S", "tool_set": "aa", "usage": usage, "tools_called": ("glob",)}
    store.fold(
        [
            an_exchange(**offered),
            an_exchange(**{**offered, "tools_called": ("bash", "glob")}),
            an_exchange(**{**offered, "usage": TokenUsage()}),
            an_exchange(**{**offered, "tool_set": None, "tools_called": ()}),
            an_exchange(**{**offered, "request_model": "other"}),
            an_exchange(**offered, status=ExchangeStatus.DENIED),
            an_exchange(**offered, http_status=429),
            an_open_exchange(**{**offered, "usage": TokenUsage()}),
            an_exchange(**offered, operation=Operation.COUNT_TOKENS),
            an_exchange(**offered, started_at_us=NOON_US - 1),
            an_exchange(**offered, started_at_us=NOON_US + DAY_US),
        ]
    )
    day = {"since_us": NOON_US, "until_us": NOON_US + DAY_US}
    found = {(use.tool_set, use.request_model): use for use in store.tool_uses(**day)}
    assert {key: use.requests for key, use in found.items()} == {
        ("aa", "scripted"): 3,
        (None, "scripted"): 1,
        ("aa", "other"): 1,
    }
    both = found["aa", "scripted"]
    assert (both.session_id, both.wire_format) == ("01S", "openai-chat")
    assert (both.usage.input_tokens, both.usage.cache_read) == (2000, 1800)
    assert both.usage.cache_write_5m is None
    assert store.tool_calls(**day) == {"glob": 4, "bash": 1}
    assert sum(use.requests for use in store.tool_uses()) == 7
    assert store.tool_calls() == {"glob": 6, "bash": 1}
