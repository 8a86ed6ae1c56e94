"""What tool definitions cost: over exactly the requests that offered them, at what these paid."""

from decimal import Decimal
from typing import Any

from opencode_gate.catalog.rows import ModelPrice, PriceTier
from opencode_gate.core.semconv import WireFormat
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ToolUse
from opencode_gate.session.tool_costs import ToolReport, together, tool_report
from opencode_gate.wire.estimates import estimated_tokens

PRICE = ModelPrice(input=Decimal(3), output=Decimal(15), cache_read=Decimal("0.3"))
SETS = {"aa": {"bash": 4000, "git_log": 400, "git_push": 800}, "bb": {"bash": 4000}}
CHAT = WireFormat.OPENAI_CHAT


def use(tool_set: str | None, requests: int = 10, session: str = "01S", **changes: Any) -> ToolUse:
    fields: dict[str, Any] = {
        "session_id": session,
        "tool_set": tool_set,
        "wire_format": CHAT,
        "provider_name": "acme",
        "request_model": "m",
        "response_model": None,
        "requests": requests,
        "usage": TokenUsage(input_uncached=100_000, output=5_000),
    }
    return ToolUse(**{**fields, **changes})


def report(*uses: ToolUse, calls: dict[str, int] | None = None, price=PRICE) -> ToolReport:
    return tool_report(
        uses,
        tool_sets=SETS,
        calls=calls or {},
        owner_of=lambda name: name.partition("_")[0] if "_" in name else "own",
        price_of=lambda _: price,
    )


def tool(found: ToolReport, name: str):
    return next(tool for server in found.servers for tool in server.tools if tool.name == name)


def test_a_definition_counts_once_for_every_request_that_offered_it() -> None:
    found = report(use("aa", 10), use("bb", 5, session="01T"), use(None, 3))
    bash, log = tool(found, "bash"), tool(found, "git_log")
    assert bash.tokens == 15 * estimated_tokens(4000, CHAT)
    assert log.tokens == 10 * estimated_tokens(400, CHAT)
    assert (bash.requests, bash.sessions) == (15, 2)
    assert (log.requests, log.sessions) == (10, 1)
    assert (found.requests, found.whole.requests) == (18, 15)
    assert found.input_tokens == 300_000


def test_a_server_is_the_sum_of_its_tools_and_the_whole_that_of_all() -> None:
    found = report(use("aa", 10), use("bb", 5))
    assert [server.whole.name for server in found.servers] == ["own", "git"]
    for server in found.servers:
        assert server.whole.tokens == sum(one.tokens for one in server.tools)
    assert found.whole.tokens == sum(server.whole.tokens for server in found.servers)
    git = found.servers[1].whole
    # Two tools of one request are one request.
    assert (git.requests, git.sessions) == (10, 1)


def test_what_nobody_called_is_named_the_largest_first() -> None:
    found = report(use("aa"), calls={"bash": 2, "git_log": 1, "elsewhere": 9})
    assert [one.name for one in found.never_called] == ["git_push"]
    assert tool(found, "bash").calls == 2
    assert [one.name for one in report(use("aa")).never_called] == ["bash", "git_push", "git_log"]


def test_the_price_is_that_of_an_average_input_token_of_the_same_requests() -> None:
    """Nine tenths from the cache: $0.57 a million and not $3."""
    usage = TokenUsage(input_uncached=10_000, cache_read=90_000, output=5_000, reasoning=10)
    found = report(use("bb", 10, usage=usage))
    tokens = 10 * estimated_tokens(4000, CHAT)
    assert tool(found, "bash").cost_nano_usd == round(tokens * Decimal("0.57") * 1000)


def test_many_short_requests_are_not_priced_as_a_long_one() -> None:
    """Their sum is above the tier's bound, none of them is."""
    dear = ModelPrice(input=Decimal(6), output=Decimal(30))
    tiered = ModelPrice(
        input=Decimal(3),
        output=Decimal(15),
        tiers=(PriceTier(above_input_tokens=50_000, price=dear),),
    )
    tokens = 10 * estimated_tokens(4000, CHAT)
    assert tool(report(use("bb"), price=tiered), "bash").cost_nano_usd == tokens * 3000


def test_without_a_price_there_is_no_amount_and_it_is_counted() -> None:
    unpriced = report(use("aa", 10), price=None).whole
    assert (unpriced.cost_nano_usd, unpriced.unpriced_requests) == (None, 10)
    uncounted = report(use("aa", 10, usage=TokenUsage()), use("aa", 4)).whole
    assert uncounted.cost_nano_usd is not None
    assert uncounted.unpriced_requests == 10


def test_leaving_tools_out_saves_their_sum() -> None:
    found = report(use("aa"))
    tokens, cost = together(found.never_called)
    assert tokens == found.whole.tokens
    assert cost == sum(one.cost_nano_usd or 0 for one in found.never_called)
    assert together([]) == (0, None)


def test_a_set_nothing_is_known_of_is_counted_apart() -> None:
    found = report(use("cc", 7), use("aa", 1))
    assert found.unmeasured_requests == 7
    assert found.whole.requests == 1


def test_nothing_is_nothing() -> None:
    found = report()
    assert (found.requests, found.input_tokens, found.servers) == (0, None, ())
