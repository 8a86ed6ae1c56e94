"""Reading numbers of a provider's usage object: unknown stays unknown, and zero stays zero."""

from decimal import Decimal, InvalidOperation
from typing import TypeVar

import msgspec

_MOST_TOKENS = 2**53
"""Beyond what JSON numbers carry exactly; a count above it is nonsense, not usage."""

_S = TypeVar("_S", bound=msgspec.Struct)


def token_count(value: object) -> int | None:
    """A token count, or `None` for anything that is not a whole number from 0."""
    if isinstance(value, float | Decimal):
        # NaN and infinities fail the comparison.
        value = int(value) if 0 <= value <= _MOST_TOKENS and value == int(value) else None
    if type(value) is int and 0 <= value <= _MOST_TOKENS:
        return value
    return None


def first_known(*values: object) -> int | None:
    """The first value that is a token count."""
    for value in values:
        count = token_count(value)
        if count is not None:
            return count
    return None


def amount_usd(value: object) -> Decimal | None:
    """An amount of money as the provider wrote it, or `None` when it is not one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None


def remainder(total: int | None, *parts: int | None) -> tuple[int | None, bool]:
    """`total` without its known parts, and whether the parts are more than the whole."""
    if total is None:
        return None, False
    rest = total - sum(part for part in parts if part is not None)
    return max(rest, 0), rest < 0


def merged(earlier: _S | None, later: _S) -> _S:
    """`later`, with what it does not say taken from `earlier` (members that are structs too)."""
    if earlier is None:
        return later
    for name in later.__struct_fields__:
        before, now = getattr(earlier, name), getattr(later, name)
        if now is None:
            setattr(later, name, before)
        elif isinstance(now, msgspec.Struct) and isinstance(before, msgspec.Struct):
            setattr(later, name, merged(before, now))
    return later
