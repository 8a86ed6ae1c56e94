"""Amounts as people type them: `5`, `5.50`, `$5`, `1,503`; tokens also as `500k` and `2M`.

The invariant: what could be read in two ways is refused, so that nobody sets a budget of 1503
dollars who meant one and a half.
"""

import re
from decimal import Decimal

from opencode_gate.core.errors import UsageError

MOST_USD = Decimal(1_000_000_000)
MOST_TOKENS = 1_000_000_000_000_000
"""Beyond any bill there is, and far within what a database counts exactly."""

_USD = re.compile(r"\$?\s?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]{1,9})?")
_TOKENS = re.compile(r"([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]{1,6})?\s?([kM]?)")
_FACTOR = {"": 1, "k": 1_000, "M": 1_000_000}


def usd_amount(text: str) -> Decimal:
    """An amount in USD, exact.

    Raises:
        UsageError: it is none.
    """
    shape = _USD.fullmatch(text.strip())
    amount = None if shape is None else Decimal(shape[1].replace(",", "") + (shape[2] or ""))
    if amount is None or amount > MOST_USD:
        raise UsageError(
            "usage",
            f"{text!r} is not an amount in dollars",
            hint="write it as 5, 5.50, $5 or 1,503",
        )
    return amount


def token_amount(text: str) -> int:
    """A number of tokens.

    Raises:
        UsageError: it is none.
    """
    shape = _TOKENS.fullmatch(text.strip())
    exact = None
    if shape is not None:
        exact = Decimal(shape[1].replace(",", "") + (shape[2] or "")) * _FACTOR[shape[3]]
    if exact is None or exact != exact.to_integral_value() or exact > MOST_TOKENS:
        raise UsageError(
            "usage",
            f"{text!r} is not a number of tokens",
            hint="write it as 500000, 500,000, 500k or 2M",
        )
    return int(exact)
