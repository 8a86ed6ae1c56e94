"""What people are told: which rule, the numbers, when and how it changes, and no word too many."""

import itertools
import re
import shlex
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.errors import CODES
from opencode_gate.core.semconv import WireFormat
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Decision, Denied
from opencode_gate.governance.models_allowed import check_models
from opencode_gate.governance.policy import Budget, ModelRules, Owner, RateLimit
from opencode_gate.governance.windows import ENDLESS, WindowSpan
from opencode_gate.governance.wording import amount_text, instant_text, raise_command
from opencode_gate.wire.refusals import (
    OVERFLOW_PATTERN,
    RETRY_PATTERN,
    WORD_JOINER,
    neutralise,
    refusal_body,
)

BERLIN = "Europe/Berlin"
DAY = WindowSpan(1_795_215_600_000_000, 1_795_302_000_000_000)  # 21 November 2026
SESSION = Owner("session", "01KBABCDEFGHJKMNPQRSTVWXYZ")
TEAM = Owner("team", "core")
NANO = 10**9


def exceeded(owner: Owner, budget: Budget, span: WindowSpan = DAY, **amounts: int) -> Decision:
    numbers = {"spent": 0, "reserved": 0, "needed": 0, **amounts}
    return sentences.budget_exceeded(owner, budget, span, zone_name=BERLIN, **numbers)


def every_decision(
    owner: Owner, budget: Budget, span: WindowSpan, amount: int, model: str
) -> Iterator[Decision]:
    """One of each kind, with these names and numbers wherever there are any."""
    numbers = {"spent": amount, "reserved": amount, "needed": amount}
    for said in (sentences.budget_exceeded, sentences.budget_held):
        yield said(owner, budget, span, zone_name=BERLIN, **numbers)
        yield said(owner, budget, span, zone_name=BERLIN, spent=0, reserved=0, needed=amount)
    yield sentences.budget_warning(
        owner, budget, span, percent=80, spent=amount, reserved=amount, zone_name=BERLIN
    )
    yield sentences.output_lowered(owner, budget, span, limit_tokens=amount % 100_000, **numbers)
    yield sentences.downgraded(
        owner, budget, span, asked=model, taken=model, zone_name=BERLIN, **numbers
    )
    yield sentences.answer_stopped(owner, budget, span, reserved=amount, zone_name=BERLIN)
    count = amount % 1_000_000 + 1
    for limit in (
        RateLimit(requests=count, per="minute"),
        RateLimit(tokens=count, per="day"),
        RateLimit(concurrent=count),
    ):
        for wait_s in (0.2, 429.0, 30_000.0, float("inf")):
            yield sentences.rate_limited(owner, limit, wait_s=wait_s, tokens=count, now_us=0)
    yield sentences.operation_denied(owner, model)
    yield sentences.input_unbounded(owner, model)
    yield sentences.price_unknown(owner, model)
    yield sentences.key_unknown()
    yield sentences.key_disabled(owner.name)
    yield sentences.key_expired(owner.name, DAY.start_us, BERLIN)
    yield sentences.policy_unreadable("the database is damaged")
    yield sentences.ledger_locked("it is locked")
    for allow in (None, (model,), (f"p/{model}", *(f"p/{n}-{owner.name}" for n in range(12)))):
        rules = ModelRules(allow=allow, deny=("closed/*", f"{model}*"))
        asked = (("p", model), ("p", "other"), ("closed", model), ("p", None))
        for denied in (check_models(owner, rules, *one) for one in asked):
            if denied is not None:
                yield denied


AMOUNTS = [
    0,
    429_000,  # $0.000429
    31 * 10**7,
    429_500_000_000,
    500 * NANO,
    502_503_504_000,
    1_503 * NANO,
    5_000 * NANO,
    429_502 * NANO,
]
NAMES = ["core", "team-502", "gpt-4-0429", "500", "rate limit", "o'hara; rm -rf", "Büro 5xx 524"]
BUDGETS = [
    Budget(window="session", usd=Decimal("429.50")),
    Budget(window="month", usd=Decimal(500)),
    Budget(window="total", usd=Decimal(1503)),
    Budget(window="day", tokens=500_429),
    Budget(window="week", usd=Decimal("0.000429"), rolling=True, since_us=0),
]


KINDS = ["session", "user", "vkey", "team", "customer"]


@pytest.mark.parametrize("name", NAMES)
def test_no_refusal_makes_opencode_try_again_or_compact(name) -> None:
    """As sent: message and command together, in the envelopes of all formats in turn."""
    wire_formats = itertools.cycle(WireFormat)
    for nth, (kind, budget) in enumerate(zip(KINDS, BUDGETS, strict=True)):
        for amount in AMOUNTS[nth % 2 :: 2]:
            for decision in every_decision(Owner(kind, name), budget, DAY, amount, name):
                text = f"{decision.message} ({decision.command})"
                body = refusal_body(
                    next(wire_formats),
                    http_status=402,
                    message=neutralise(text),
                    error_type="insufficient_quota",
                    code=decision.code or "insufficient_quota",
                ).decode()
                assert not RETRY_PATTERN.search(body), body
                assert not OVERFLOW_PATTERN.search(body), body


names = st.text(min_size=1, max_size=40)
spans = st.builds(
    lambda start, length: WindowSpan(start, start + length),
    st.integers(0, 4 * 10**15),
    st.integers(1, 10**14),
)


@given(
    kind=st.sampled_from(KINDS),
    name=names | st.from_regex(RETRY_PATTERN),
    model=names | st.from_regex(OVERFLOW_PATTERN),
    budget=st.sampled_from(BUDGETS),
    span=spans | st.just(ENDLESS),
    amount=st.integers(0, 10**18),
)
def test_no_refusal_does_with_any_name_and_number(kind, name, model, budget, span, amount) -> None:
    for decision in every_decision(Owner(kind, name), budget, span, amount, model):
        text = neutralise(f"{decision.message} ({decision.command})")
        assert not RETRY_PATTERN.search(text)
        assert not OVERFLOW_PATTERN.search(text)
        assert decision.message.startswith("ogate")


def test_the_words_of_a_sentence_are_sent_as_they_are() -> None:
    """Only names and amounts are ever broken up: what is copied from the screen still works."""
    for kind in KINDS:
        for budget in (Budget(window="month", usd=Decimal(5)), Budget(window="day", tokens=7)):
            for decision in every_decision(Owner(kind, "core"), budget, DAY, 7, "m"):
                text = f"{decision.message} ({decision.command})".replace("429", "")
                assert neutralise(text) == text


@given(limit=st.integers(0, 10**15), needed=st.integers(0, 10**15), is_tokens=st.booleans())
def test_the_command_can_be_copied_and_raises_by_enough(limit, needed, is_tokens) -> None:
    if is_tokens:
        budget = Budget(window="month", tokens=limit)
    else:
        budget = Budget(window="month", usd=Decimal(limit) / NANO)
    command = raise_command(TEAM, budget, needed=needed)
    assert WORD_JOINER not in neutralise(command)
    amount = int(shlex.split(command)[4])
    assert amount * (1 if is_tokens else NANO) >= needed
    assert amount >= 1


@pytest.mark.parametrize(
    ("owner", "budget", "command"),
    [
        (SESSION, Budget(window="session", usd=Decimal(5)), "ogate budgets raise session 5"),
        (SESSION, Budget(window="session", usd=Decimal(77)), "ogate budgets raise session 50"),
        (
            Owner("session", "01KB"),
            Budget(window="hour", usd=Decimal("0.3")),
            "ogate budgets raise hour 1 --session 01KB",
        ),
        (Owner("user", "me"), Budget(window="day", usd=Decimal(20)), "ogate budgets raise day 20"),
        (
            TEAM,
            Budget(window="month", usd=Decimal(500)),
            "ogate budgets raise month 400 --team core",
        ),
        (
            Owner("vkey", "a b"),
            Budget(window="day", tokens=60_000),
            "ogate budgets raise day 40000 --tokens --vkey 'a b'",
        ),
    ],
)
def test_the_command_names_budget_and_owner(owner, budget, command) -> None:
    assert raise_command(owner, budget) == command


def test_a_spent_budget_is_told_with_all_its_numbers() -> None:
    five = Budget(window="session", usd=Decimal(5))
    decision = exceeded(SESSION, five, ENDLESS, spent=4_980_000_000, needed=310_000_000)
    assert decision.message == (
        "ogate: the session budget of $5 has $0.02 left ($4.98 spent, $0.00 reserved), and this "
        "request needs up to $0.31. It never begins anew."
    )
    spent = exceeded(SESSION, five, ENDLESS, spent=5 * NANO, needed=1)
    assert spent.message == (
        "ogate: the session budget of $5 is spent ($5 spent, $0.00 reserved); this request needs "
        "up to $0.000000001. It never begins anew."
    )
    assert (decision.rule, decision.outcome, decision.code) == ("budget", "deny", "budget-exceeded")
    assert (decision.spent, decision.limit, decision.needed) == (
        4_980_000_000,
        5 * NANO,
        31 * 10**7,
    )
    assert decision.command == "ogate budgets raise session 5"


def test_a_window_that_begins_anew_says_when_in_the_owners_zone() -> None:
    budget = Budget(window="day", usd=Decimal(500), mode="shadow")
    decision = exceeded(TEAM, budget, spent=500 * NANO, needed=NANO)
    assert decision.message == (
        "ogate: the daily budget of $500 of team core is spent ($500 spent, $0.00 reserved); this "
        "request needs up to $1. It begins anew at 2026-11-22 00:00 (Europe/Berlin)."
    )
    assert decision.outcome == "shadow"
    assert decision.resets_at_us == DAY.end_us


def test_what_only_running_requests_hold_is_told_apart() -> None:
    budget = Budget(window="session", usd=Decimal(5))
    decision = sentences.budget_held(
        SESSION, budget, ENDLESS, spent=NANO, reserved=4 * NANO, needed=NANO, zone_name=BERLIN
    )
    assert decision.code == "budget-held"
    assert "is spent or reserved ($1 spent, $4 reserved)" in decision.message
    assert "free again when they have ended" in decision.message


@pytest.mark.parametrize(
    ("nano_usd", "up", "down"),
    [
        (0, "$0.00", "$0.00"),
        (1, "$0.000000001", "$0.000000001"),
        (429_000, "$0.00043", "$0.00042"),
        (99_999_999, "$0.10", "$0.099"),
        (100_000_001, "$0.11", "$0.10"),
        (4_980_000_000, "$4.98", "$4.98"),
        (5 * NANO, "$5", "$5"),
        (429_500_000_000, "$429.50", "$429.50"),
        (1_503 * NANO, "$1,503", "$1,503"),
        (1_503_004_000_000, "$1,503.01", "$1,503"),
    ],
)
def test_amounts_are_rounded_to_the_side_of_caution(nano_usd, up, down) -> None:
    assert amount_text(nano_usd, "usd") == up
    assert amount_text(nano_usd, "usd", is_rounded_up=False) == down


@given(nano_usd=st.integers(0, 10**16))
def test_a_shown_amount_is_off_by_less_than_a_tenth_or_a_cent(nano_usd) -> None:
    def shown(*, up: bool) -> Decimal:
        text = amount_text(nano_usd, "usd", is_rounded_up=up)
        return Decimal(text.removeprefix("$").replace(",", "")) * NANO

    assert shown(up=False) <= nano_usd <= shown(up=True)
    assert shown(up=True) - shown(up=False) <= min(NANO // 100, max(1, nano_usd // 10))


def test_every_refusal_has_a_code_of_the_table_and_can_be_raised() -> None:
    refusals = [
        one for one in every_decision(TEAM, BUDGETS[1], DAY, NANO, "p/m") if one.outcome == "deny"
    ]
    assert len({one.code for one in refusals}) >= 12
    for decision in refusals:
        assert decision.code in CODES
        assert decision.command is not None and decision.command.startswith("ogate ")
        assert Denied(decision, http_status=402).message == decision.message


def test_a_key_that_is_refused_learns_nothing_but_its_own_name() -> None:
    for decision in (sentences.key_disabled("ci"), sentences.key_expired("ci", DAY.start_us)):
        assert decision.owner == "vkey ci"
        assert not re.search("team|customer|budget", decision.message)
    assert sentences.key_unknown().owner is None


def test_limits_say_when_the_next_request_fits() -> None:
    limit = RateLimit(requests=60, per="minute")
    told = sentences.rate_limited(TEAM, limit, wait_s=11.2, now_us=5)
    assert told.message == (
        "ogate: team core may make 60 requests in any minute, and has. The next request fits in "
        "12 s."
    )
    assert told.resets_at_us == 5 + 11_200_000
    waited = sentences.rate_limited(TEAM, limit, outcome="wait", wait_s=2.0)
    assert (waited.outcome, waited.code) == ("wait", None)
    full = sentences.rate_limited(TEAM, RateLimit(concurrent=4))
    assert full.message == (
        "ogate: team core has as many requests running as it may: 4. The next one fits when one "
        "of them has ended."
    )
    shadow = RateLimit(requests=60, per="minute", mode="shadow")
    recorded = sentences.rate_limited(TEAM, shadow)
    assert recorded.outcome == "shadow"
    assert recorded.message == "ogate: team core may make 60 requests in any minute, and has."


@pytest.mark.parametrize("zone", ["no/where", "", "x\0y"])
def test_a_zone_nobody_knows_still_gets_a_sentence(zone) -> None:
    assert instant_text(0, zone) == "1970-01-01 00:00 (UTC)"


def test_the_last_moment_there_is_can_be_written() -> None:
    last_us = 253_402_300_799_000_000
    assert instant_text(last_us, "Europe/Berlin") == "9999-12-31 23:59:59 (UTC)"
