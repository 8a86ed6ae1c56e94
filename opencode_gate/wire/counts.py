"""Reading a provider's usage object: unknown stays unknown, and zero stays zero.

A format names the counts it reads in a struct, `Counts` and those inside it. The idea: what is
usual is decoded straight into that struct; only where something in it is no count is each member
looked at by itself. The invariant: one strange member costs no other.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from opencode_gate.wire.decoding import NOT_DECODED, Lenient

_MOST_TOKENS = 2**53
"""Beyond what JSON numbers carry exactly; a count above it is nonsense, not usage."""

_MOST_USD = 1_000_000
"""The same for the cost of one answer."""

_TICKS_IN_A_USD = 10**10

Tokens = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)] | None
"""A token count, `None` where none is told."""


class Counts(msgspec.Struct):
    """A usage object as a format reads it; the members here may be in any.

    Attributes:
        cost: OpenRouter's: https://openrouter.ai/docs/use-cases/usage-accounting. Perplexity's
            lists the parts beside their total: https://docs.perplexity.ai/api-reference.
        cost_in_usd_ticks: xAI's: https://docs.x.ai/developers/cost-tracking.
    """

    cost: Any = None
    is_byok: Any = None
    cost_details: Any = None
    cost_in_usd_ticks: Any = None

    def reported_cost_usd(self) -> Decimal | None:
        """What the provider says the answer cost."""
        if self.cost is None:
            ticks = self.cost_in_usd_ticks
            return None if ticks is None else amount_usd(ticks, parts=_TICKS_IN_A_USD)
        if isinstance(self.cost, dict):
            return amount_usd(self.cost.get("total_cost"))
        cost = amount_usd(self.cost)
        if cost is not None and self.is_byok is True and isinstance(self.cost_details, dict):
            # With a key of one's own, `cost` is only the fee on top.
            upstream = amount_usd(self.cost_details.get("upstream_inference_cost"))
            return cost if upstream is None else cost + upstream
        return cost


_CountsT = TypeVar("_CountsT", bound=Counts)


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


_members: Lenient[dict[str, Any]] = Lenient(dict[str, Any], float_hook=_decimal)
_raw_usages: Lenient[dict[str, Any]] = Lenient(dict[str, Any])


class CountsReader(Generic[_CountsT]):
    """Reads usage objects of one format, those that have a strange member too."""

    __slots__ = ("_decode", "_schema")

    def __init__(self, schema: type[_CountsT]) -> None:
        self._schema = schema
        self._decode = msgspec.json.Decoder(schema, float_hook=_decimal).decode

    def read(self, text: bytes) -> _CountsT:
        """The counts in a usage object.

        Raises:
            msgspec.DecodeError: it is not an object.
        """
        try:
            return self._decode(text)
        except NOT_DECODED:
            return _member_by_member(self._schema, _members.decode(text))


_StructT = TypeVar("_StructT", bound=msgspec.Struct)


def _member_by_member(schema: type[_StructT], members: Mapping[str, Any]) -> _StructT:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(schema):
        value = members.get(field.encode_name)
        inner = _struct_in(field.type)
        if field.type is Any:
            found[field.name] = value
        elif inner is None:
            found[field.name] = token_count(value)
        elif isinstance(value, dict):
            found[field.name] = _member_by_member(inner, value)
    return schema(**found)


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct of an optional field, `None` where it holds something else."""
    for one in getattr(kind, "__args__", ()):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def laid_over(earlier: _StructT, later: _StructT) -> _StructT:
    """The later counts, with those of the earlier that they do not tell."""
    found: dict[str, Any] = {}
    for name in later.__struct_fields__:
        before, now = getattr(earlier, name), getattr(later, name)
        if isinstance(now, msgspec.Struct) and isinstance(before, msgspec.Struct):
            now = laid_over(before, now)
        found[name] = before if now is None else now
    return type(later)(**found)


_DIGITS = b"0123456789"
_NO_USAGE = b"{}"
_USUAL_TIERS = frozenset({"default", "auto"})


class Usages(Generic[_CountsT]):
    """The usage objects of one answer, each laid over those before it.

    Some providers tell their counts with every event. Then only the digits differ, so that the
    last one says all that those before it said, and nothing but the last is decoded.
    """

    __slots__ = ("_counts", "_earlier", "_first", "_last", "_reader", "_shape")

    def __init__(self, reader: CountsReader[_CountsT]) -> None:
        self._reader = reader
        self._first: bytes | None = None
        self._last = _NO_USAGE
        self._shape: bytes | None = None
        # Of the last one, unless it is still to be decoded, and of those before its like.
        self._counts: _CountsT | None = None
        self._earlier: _CountsT | None = None

    def take(self, raw: msgspec.Raw) -> bool:
        """Keeps a usage object; False if it is null.

        Raises:
            msgspec.DecodeError: it is not an object.
        """
        text = bytes(raw)
        if text == b"null":
            return False
        if self._first is None:
            self._counts = self._reader.read(text)
            self._first = self._last = text
            return True
        if self._shape is None:
            self._shape = self._last.translate(None, _DIGITS)
        shape = text.translate(None, _DIGITS)
        if shape == self._shape:
            self._counts = None
        else:
            counts = self._reader.read(text)
            self._earlier = self.counts()
            self._counts, self._shape = counts, shape
        self._last = text
        return True

    def take_beside(self, tier: object, cost: object) -> None:
        """Keeps what is told beside the usage as if it were told in it.

        Args:
            tier: which an answer of OpenAI's was served by; one of the usual price says nothing.
            cost: what OpenCode Zen took from the balance, a text. Nothing is taken where a plan
                or a key of one's own pays, so a zero says nothing of the cost.
        """
        told: dict[str, str] = {}
        if isinstance(tier, str) and tier not in _USUAL_TIERS:
            told["service_tier"] = tier
        if isinstance(cost, str) and amount_usd(cost):
            told["cost"] = cost
        if told:
            text = merged_json(self._last, msgspec.json.encode(told))
            self.take(msgspec.Raw(text.encode()))

    def counts(self) -> _CountsT:
        """What they tell together."""
        counts = self._counts
        if counts is None:
            try:
                counts = self._reader.read(self._last)
            except msgspec.DecodeError:
                # Of the right shape, and yet with digits in it that make it no JSON.
                counts = self._reader.read(_NO_USAGE)
            self._counts = counts
        return counts if self._earlier is None else laid_over(self._earlier, counts)

    def raw(self) -> str | None:
        """The usage object as JSON text, the last one laid over the first."""
        first = self._first
        if first is None:
            return None
        if first is self._last:
            return first.decode("utf-8", "replace")
        return merged_json(first, self._last)


def merged_json(first: bytes, last: bytes) -> str:
    """One usage object of two, as JSON text; the last alone where they cannot be merged."""
    if first != last:
        try:
            both = _raw_usages.decode(first) | _raw_usages.decode(last)
            return msgspec.json.encode(both).decode()
        except msgspec.DecodeError:
            pass
    return last.decode("utf-8", "replace")


def token_count(value: object) -> int | None:
    """A token count, or `None` for anything that is not a whole number from 0."""
    if type(value) is int:
        return value if 0 <= value <= _MOST_TOKENS else None
    # NaN and infinities fail the comparison.
    if isinstance(value, float | Decimal) and 0 <= value <= _MOST_TOKENS:
        count = int(value)
        return count if count == value else None
    return None


def amount_usd(value: object, *, parts: int = 1) -> Decimal | None:
    """An amount of money as the provider wrote it, or `None` when it is not one.

    Args:
        parts: into how many the provider divides a dollar.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    if not amount.is_finite() or not 0 <= amount <= _MOST_USD * parts:
        return None
    # A division rounds, and so is made only where there is one.
    return amount if parts == 1 else amount / parts


def remainder(
    total: int | None, part: int | None, other_part: int | None = None
) -> tuple[int | None, bool]:
    """`total` without its known parts, and whether the parts are more than the whole."""
    if total is None:
        return None, False
    if part is not None:
        total -= part
    if other_part is not None:
        total -= other_part
    return (total, False) if total >= 0 else (0, True)
