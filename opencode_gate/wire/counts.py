"""Reading a provider's usage object: unknown stays unknown, and zero stays zero."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import msgspec

from opencode_gate.wire.decoding import Lenient

Usage: TypeAlias = dict[str, Any]
"""A usage object as it came, numbers with a fraction as `Decimal`."""

_MOST_TOKENS = 2**53
"""Beyond what JSON numbers carry exactly; a count above it is nonsense, not usage."""

_MOST_USD = 1_000_000
"""The same for the cost of one answer."""


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


_usages: Lenient[Usage] = Lenient(dict[str, Any], float_hook=_decimal)
_raw_usages: Lenient[dict[str, Any]] = Lenient(dict[str, Any])


def later_usage(earlier: Usage, text: bytes) -> Usage:
    """The usage object `text` laid over an earlier one: what it does not say stays.

    Raises:
        msgspec.DecodeError: `text` is not a JSON object.
    """
    usage = _usages.decode(text)
    if not earlier:
        return {name: value for name, value in usage.items() if value is not None}
    later, usage = usage, earlier.copy()
    for name, value in later.items():
        if value is None:
            continue
        before = usage.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            value = before | {inner: count for inner, count in value.items() if count is not None}
        usage[name] = value
    return usage


def merged_json(first: bytes, last: bytes) -> str:
    """One usage object of two that `later_usage` has read, as JSON text."""
    if first == last:
        return last.decode("utf-8", "replace")
    return msgspec.json.encode(_raw_usages.decode(first) | _raw_usages.decode(last)).decode()


def member(usage: Usage, name: str) -> Mapping[str, Any]:
    """A member that is an object; an empty one where it is missing or anything else."""
    value = usage.get(name)
    return value if isinstance(value, dict) else {}


def token_count(value: object) -> int | None:
    """A token count, or `None` for anything that is not a whole number from 0."""
    if type(value) is int:
        return value if 0 <= value <= _MOST_TOKENS else None
    if value is None:
        return None
    # NaN and infinities fail the comparison.
    if isinstance(value, float | Decimal) and 0 <= value <= _MOST_TOKENS:
        count = int(value)
        return count if count == value else None
    return None


def first_count(*values: object) -> int | None:
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
    except (InvalidOperation, ValueError):
        return None
    return amount if amount.is_finite() and 0 <= amount <= _MOST_USD else None


def remainder(total: int | None, *parts: int | None) -> tuple[int | None, bool]:
    """`total` without its known parts, and whether the parts are more than the whole."""
    if total is None:
        return None, False
    rest = total - sum(part for part in parts if part is not None)
    return max(rest, 0), rest < 0
