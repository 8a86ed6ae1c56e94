"""What the definitions of tools take of every request's input, tool by tool and server by server.

The idea: each request carries the whole definition of every tool it offers, called or not. The
tokens are estimated from the definitions' sizes and priced as the average input token of the
same requests was, so what a cache kept is as cheap here as it was there. The invariant: a
tool's figures are over exactly the requests that offered it; without a price there is no amount.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import msgspec
from msgspec.structs import replace

from opencode_gate.catalog.arithmetic import cost_of
from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.money import NANO_PER_USD
from opencode_gate.core.usage import sum_known
from opencode_gate.ledger.records import ToolUse
from opencode_gate.wire.estimates import estimated_tokens


class ToolCost(msgspec.Struct, frozen=True, kw_only=True):
    """One tool's definition, or several tools' together.

    Attributes:
        requests: those that offered it.
        sessions: those with such a request.
        calls: the answers that called it.
        tokens: what its definition came to in all these requests.
        cost_nano_usd: what these cost, `None` where no request has a known price.
        unpriced_requests: requests whose part of the cost is unknown.
    """

    name: str
    requests: int
    sessions: int
    calls: int
    tokens: int
    cost_nano_usd: int | None
    unpriced_requests: int


class ServerCost(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of one owner: an MCP server, Opencode itself, or nobody known."""

    whole: ToolCost
    tools: tuple[ToolCost, ...]

    @property
    def never_called(self) -> tuple[ToolCost, ...]:
        """Its tools that no answer called."""
        return tuple(tool for tool in self.tools if not tool.calls)


class ToolReport(msgspec.Struct, frozen=True, kw_only=True):
    """All tools of a span of time.

    Attributes:
        requests: all requests, also those that offered none.
        input_tokens: of all these; `None` if nobody counted any.
        whole: every tool together.
        unmeasured_requests: they offered tools of which nothing else is known.
    """

    requests: int
    input_tokens: int | None
    whole: ToolCost
    servers: tuple[ServerCost, ...]
    unmeasured_requests: int

    @property
    def never_called(self) -> tuple[ToolCost, ...]:
        """The tools that no answer called, those that took most first."""
        return _largest_first(tool for server in self.servers for tool in server.never_called)


def tool_report(
    uses: Iterable[ToolUse],
    *,
    tool_sets: Mapping[str, Mapping[str, int]],
    calls: Mapping[str, int],
    owner_of: Callable[[str], str],
    price_of: Callable[[ToolUse], ModelPrice | None],
) -> ToolReport:
    """The report over some uses.

    Args:
        tool_sets: the bytes of each tool's definition, by set.
        calls: how many answers called each tool.
        owner_of: whose a tool is.
        price_of: the prices of a use's model.
    """
    seen = list(uses)
    known = [use for use in seen if use.tool_set in tool_sets]
    rates = {id(use): _nano_usd_per_token(use, price_of(use)) for use in known}
    offers: dict[str, list[_Offer]] = {}
    for use in known:
        for name, size in tool_sets[use.tool_set or ""].items():
            tokens = use.requests * estimated_tokens(size, use.wire_format)
            offers.setdefault(name, []).append(_Offer(use, tokens, rates[id(use)]))
    owned: dict[str, list[str]] = {}
    for name in offers:
        owned.setdefault(owner_of(name), []).append(name)
    servers = [
        ServerCost(
            whole=_summed(owner, [offer for name in names for offer in offers[name]], names, calls),
            tools=_largest_first(_summed(name, offers[name], [name], calls) for name in names),
        )
        for owner, names in owned.items()
    ]
    return ToolReport(
        requests=sum(use.requests for use in seen),
        input_tokens=sum_known(*(use.usage.input_tokens for use in seen)),
        whole=_summed("all", [o for found in offers.values() for o in found], offers, calls),
        servers=tuple(sorted(servers, key=lambda server: -server.whole.tokens)),
        unmeasured_requests=sum(
            use.requests
            for use in seen
            if use.tool_set is not None and use.tool_set not in tool_sets
        ),
    )


def together(tools: Iterable[ToolCost]) -> tuple[int, int | None]:
    """The tokens and the cost of some tools."""
    found = list(tools)
    return sum(tool.tokens for tool in found), sum_known(*(tool.cost_nano_usd for tool in found))


class _Offer(msgspec.Struct, frozen=True):
    """One tool in one use, and what a token of its requests' input cost, in nano-dollars."""

    use: ToolUse
    tokens: int
    rate: Decimal | None


def _nano_usd_per_token(use: ToolUse, price: ModelPrice | None) -> Decimal | None:
    """What an input token cost on average; tiers for long requests are left out of it."""
    count = use.usage.input_tokens
    if price is None or not count:
        return None
    input_usage = msgspec.structs.replace(use.usage, output=0, reasoning=None)
    amount = cost_of(input_usage, replace(price, tiers=()))
    return None if amount is None else amount.usd * NANO_PER_USD / count


def _summed(
    name: str, offers: Sequence[_Offer], names: Iterable[str], calls: Mapping[str, int]
) -> ToolCost:
    uses = {id(offer.use): offer.use for offer in offers}
    return ToolCost(
        name=name,
        requests=sum(use.requests for use in uses.values()),
        sessions=len({use.session_id for use in uses.values()}),
        calls=sum(calls.get(tool, 0) for tool in names),
        tokens=sum(offer.tokens for offer in offers),
        cost_nano_usd=sum_known(
            *(None if offer.rate is None else round(offer.rate * offer.tokens) for offer in offers)
        ),
        unpriced_requests=sum(
            use.requests for use in {id(o.use): o.use for o in offers if o.rate is None}.values()
        ),
    )


def _largest_first(tools: Iterable[ToolCost]) -> tuple[ToolCost, ...]:
    return tuple(sorted(tools, key=lambda tool: (-tool.tokens, tool.name)))
