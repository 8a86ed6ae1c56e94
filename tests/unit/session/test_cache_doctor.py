"""Where a conversation fell out of the cache, the first cause of it, and what it cost."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.core.semconv import ConversationKind, ExchangeStatus, Operation, WireFormat
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.session.cache_doctor import CacheHistory, Cause, examine, extra_cost
from opencode_gate.wire.prompt_parts import prompt_parts, tool_set_of
from opencode_gate.wire.routes import identify
from tests.support.ledger_records import NOON_US, an_exchange

MINUTE_US = 60_000_000
PRICE = ModelPrice(
    input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"), cache_write=Decimal("3.75")
)
CHAT = identify("POST", "/v1/chat/completions")


def parts(*said: str, tools: tuple[str, ...] = ("bash",), system: str = "s") -> bytes:
    """The parts of a chat request, made as a gateway makes them."""
    messages = [{"role": "system", "content": system}]
    messages += [{"role": "user", "content": text} for text in said]
    body = {"messages": messages, "tools": [{"name": name} for name in tools]}
    packed = prompt_parts(CHAT, json.dumps(body).encode(), b"k")
    assert packed is not None
    return packed


def asked(
    minute: float, uncached: int, read: int | None, shape: bytes | None, **changes: Any
) -> ExchangeRecord:
    fields: dict[str, Any] = {
        "started_at_us": NOON_US + round(minute * MINUTE_US),
        "provider_name": "openai",
        "request_model": "m-1",
        "usage": TokenUsage(input_uncached=uncached, cache_read=read, output=10),
        "parts": shape,
        "tool_set": None if shape is None else tool_set_of(shape),
    }
    return an_exchange(**{**fields, **changes})


def diagnosed(
    *exchanges: ExchangeRecord,
    price: ModelPrice | None = PRICE,
    tool_sets: Mapping[str, Mapping[str, int]] | None = None,
) -> CacheHistory:
    [history] = examine(exchanges, price_of=lambda _: price, tool_sets=tool_sets or {})
    return history


FIRST = asked(0, 10_000, 0, parts("one"))
WARM = asked(1, 100, 10_000, parts("one", "two"))


def test_a_conversation_that_goes_on_from_the_cache_has_no_fall():
    """Also where a long new message lowers the share of what was cached."""
    pasted = asked(2, 90_000, 10_100, parts("one", "two", "x" * 300_000))
    history = diagnosed(FIRST, WARM, pasted)
    assert history.falls == ()
    assert history.is_cached
    assert (history.input_tokens, history.cache_read_tokens) == (120_200, 20_100)


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"shape": parts("one", "two", tools=("bash", "git"))}, Cause.TOOLS),
        ({"shape": parts("one", "two", system="now it is noon")}, Cause.SYSTEM),
        ({"shape": parts("ONE", "two")}, Cause.MESSAGE),
        ({"shape": parts("one", "TWO")}, Cause.MESSAGE),
        ({"request_model": "m-2"}, Cause.MODEL),
        ({"provider_name": "openrouter"}, Cause.MODEL),
        ({"credential_name": "home"}, Cause.KEY),
        ({"minute": 6.1}, Cause.PAUSE),
        ({}, Cause.UNKNOWN),
        ({"shape": None}, Cause.UNKNOWN),
    ],
)
def test_the_cause_of_a_fall_is_the_first_thing_that_changed(changed, cause):
    """Everything else goes on as it was."""
    after = {"minute": 2, "shape": parts("one", "two", "three"), **changed}
    minute, shape = after.pop("minute"), after.pop("shape")
    history = diagnosed(FIRST, WARM, asked(minute, 10_200, 0, shape, **after))
    [fall] = history.falls
    assert fall.cause is cause
    assert fall.lost_tokens == 10_100
    assert fall.before is WARM


def test_of_several_changes_the_one_nearest_the_beginning_is_named():
    """A provider reads tools, then the system prompt, then the messages; a pause comes last."""
    everything = parts("ONE", "two", tools=("git",), system="S")
    [fall] = diagnosed(FIRST, WARM, asked(99, 10_200, 0, everything)).falls
    assert fall.cause is Cause.TOOLS
    [fall] = diagnosed(FIRST, WARM, asked(99, 10_200, 0, parts("ONE", "TWO"))).falls
    assert (fall.cause, fall.position) == (Cause.MESSAGE, 0)
    another = asked(99, 10_200, 0, everything, request_model="m-2")
    [fall] = diagnosed(FIRST, WARM, another).falls
    assert fall.cause is Cause.MODEL


@pytest.mark.parametrize(
    ("after", "position"),
    [(("one", "TWO", "three"), 1), (("one", "two", "THREE", "four"), 2), (("one",), 1)],
)
def test_the_first_changed_message_is_numbered(after, position):
    """Also where messages were taken back."""
    before = asked(1, 100, 10_000, parts("one", "two", "three"))
    [fall] = diagnosed(FIRST, before, asked(2, 10_200, 0, parts(*after))).falls
    assert (fall.cause, fall.position, fall.messages) == (Cause.MESSAGE, position, 3)


def test_changed_tools_are_named():
    before, after = parts("one", tools=("a", "b", "c")), parts("one", tools=("b", "c", "d"))
    sets = {
        tool_set_of(before) or "": {"a": 10, "b": 10, "c": 10},
        tool_set_of(after) or "": {"b": 10, "c": 11, "d": 10},
    }
    [fall] = diagnosed(asked(0, 9000, 0, before), asked(1, 9000, 0, after), tool_sets=sets).falls
    assert (fall.tools_added, fall.tools_removed, fall.tools_resized) == (("d",), ("a",), ("c",))


def test_a_compaction_explains_why_the_conversation_began_anew():
    compaction = asked(1.5, 10_000, 0, parts("x"), kind=ConversationKind.COMPACTION)
    elsewhere = asked(
        1.5, 10_000, 0, parts("x"), kind=ConversationKind.COMPACTION, conversation_id="ses_9"
    )
    after = asked(2, 10_200, 0, parts("summary", "three"))
    assert diagnosed(FIRST, WARM, compaction, after).falls[0].cause is Cause.COMPACTION
    assert diagnosed(FIRST, WARM, elsewhere, after).falls[0].cause is Cause.MESSAGE


def test_the_hour_long_tier_outlives_a_coffee_break():
    """Five minutes else; whoever paid for an hour has one."""

    def written(minute: float, write: int, read: int, *said: str) -> ExchangeRecord:
        usage = TokenUsage(input_uncached=5, cache_read=read, cache_write_1h=write, output=1)
        return asked(minute, 0, 0, parts(*said), usage=usage)

    start = written(0, 10_000, 0, "one")
    [fall] = diagnosed(start, written(50, 10_100, 0, "one", "two")).falls
    assert (fall.cause, fall.pause_us) == (Cause.UNKNOWN, 50 * MINUTE_US)
    [fall] = diagnosed(start, written(61, 10_100, 0, "one", "two")).falls
    assert fall.cause is Cause.PAUSE


def test_a_request_without_counts_keeps_the_cache_warm():
    """A cut answer's request was read by the provider, too: the pause begins after it."""
    cut = asked(4, 0, None, parts("one", "two"), usage=TokenUsage(input_uncached=1, output=1))
    after = asked(8, 10_200, 0, parts("one", "two", "three"))
    [fall] = diagnosed(FIRST, WARM, cut, after).falls
    assert fall.before is WARM
    assert (fall.cause, fall.pause_us) == (Cause.UNKNOWN, 4 * MINUTE_US)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": ExchangeStatus.DENIED},
        {"status": ExchangeStatus.OPEN},
        {"http_status": 429},
        {"operation": Operation.COUNT_TOKENS},
        {"kind": ConversationKind.TITLE},
        {"conversation_id": "ses_2"},
    ],
)
def test_what_is_not_the_next_request_of_the_conversation_is_not_compared(changes):
    """Titles, refusals and other conversations have caches of their own, or none."""
    odd = asked(1.5, 9000, 0, parts("elsewhere"), **changes)
    after = asked(2, 100, 10_100, parts("one", "two", "three"))
    histories = examine([FIRST, WARM, odd, after], price_of=lambda _: PRICE, tool_sets={})
    assert [fall for history in histories for fall in history.falls] == []


def test_each_conversation_is_examined_by_itself():
    sub = asked(1.2, 5000, 0, parts("sub"), conversation_id="ses_2", kind=ConversationKind.SUBAGENT)
    histories = examine([FIRST, sub, WARM], price_of=lambda _: PRICE, tool_sets={})
    assert [(h.conversation_id, h.kind, len(h.exchanges)) for h in histories] == [
        ("ses_1", ConversationKind.MAIN, 2),
        ("ses_2", ConversationKind.SUBAGENT, 1),
    ]


def test_a_provider_that_says_nothing_of_its_cache_gets_no_diagnosis():
    silent = [asked(minute, 9000, None, parts("one")) for minute in range(3)]
    assert examine(silent, price_of=lambda _: PRICE, tool_sets={}) == ()


def test_where_nothing_is_ever_cached_only_a_visible_change_is_a_finding():
    """A clock in the system prompt keeps it from ever being cached; a provider without a cache
    loses nothing."""
    history = diagnosed(*(asked(n, 9000, 0, parts("one")) for n in range(3)))
    assert (history.falls, history.is_cached) == ((), False)
    clock = [asked(n, 9000, 0, parts("one", system=f"12:0{n}")) for n in range(3)]
    assert [fall.cause for fall in diagnosed(*clock).falls] == [Cause.SYSTEM, Cause.SYSTEM]


@pytest.mark.parametrize(
    ("read", "is_fall"), [(10_100, False), (9_090, False), (9_000, True), (0, True)]
)
def test_rounding_is_no_fall(read: int, is_fall: bool):
    """Providers cache in blocks."""
    after = asked(2, 10_200 - read, read, parts("one", "two", "three"))
    assert bool(diagnosed(FIRST, WARM, after).falls) is is_fall


def test_a_small_prompt_is_below_what_providers_cache():
    start, after = asked(0, 1000, 0, parts("one")), asked(1, 1010, 0, parts("ONE"))
    assert diagnosed(start, after).falls == ()


def test_what_was_written_is_what_can_be_read_where_writes_are_reported():
    """Anthropic caches what the client marks: the rest was never there to lose."""

    def marked(minute: float, uncached: int, write: int, read: int) -> ExchangeRecord:
        usage = TokenUsage(input_uncached=uncached, cache_read=read, cache_write_5m=write, output=1)
        return asked(
            minute, 0, 0, parts("one"), usage=usage, wire_format=WireFormat.ANTHROPIC_MESSAGES
        )

    assert diagnosed(marked(0, 50_000, 2_000, 0), marked(1, 50_000, 0, 2_000)).falls == ()
    [fall] = diagnosed(marked(0, 100, 8_000, 2_000), marked(1, 100, 10_000, 0)).falls
    assert fall.lost_tokens == 10_000


def test_the_money_is_the_difference_of_two_prices():
    """10 100 tokens at $3 instead of $0.30 a million."""
    [fall] = diagnosed(FIRST, WARM, asked(2, 10_200, 0, parts("ONE"))).falls
    assert fall.extra_cost_nano_usd == round(10_100 * (3 - 0.3) * 1000)


def test_what_was_written_anew_costs_the_price_of_writing():
    """1000 tokens at $3.75, 500 at $3."""
    usage = TokenUsage(input_uncached=900, cache_read=0, cache_write_5m=1000, output=5)
    expected = round((1000 * (3.75 - 0.3) + 500 * (3 - 0.3)) * 1000)
    assert extra_cost(usage, 1500, PRICE) == expected


def test_the_tier_of_the_request_counts():
    """A long request is priced with its tier as a whole, cached or not."""
    dear = ModelPrice(input=Decimal(6), output=Decimal(22), cache_read=Decimal("0.6"))
    tiered = ModelPrice(
        input=Decimal(3),
        output=Decimal(15),
        cache_read=Decimal("0.3"),
        tiers=(PriceTier(above_input_tokens=200_000, price=dear),),
    )
    usage = TokenUsage(input_uncached=250_000, cache_read=0, output=5)
    assert extra_cost(usage, 1000, tiered) == round(1000 * (6 - 0.6) * 1000)


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (None, None),
        (ModelPrice(input=Decimal(3), output=Decimal(15)), None),
        (ModelPrice(cache_read=Decimal(1)), None),
        (ModelPrice(input=Decimal(0), output=Decimal(0)), 0),
    ],
)
def test_without_both_prices_there_is_no_amount(price: ModelPrice | None, expected: int | None):
    """Free is free; unknown is not."""
    usage = TokenUsage(input_uncached=5000, cache_read=0, output=5)
    assert extra_cost(usage, 4000, price) == expected
