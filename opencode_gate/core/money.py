"""Money as integer nano-dollars: 1 USD is 1,000,000,000 nano-USD.

The invariant: amounts are summed as integers and rounded once, when they are shown.
"""

from decimal import ROUND_HALF_EVEN, Decimal

NANO_PER_USD = 1_000_000_000


def nano_usd(amount_usd: Decimal) -> int:
    """`amount_usd` in nano-dollars, rounded half to even.

    Raises:
        ValueError: the amount is not finite.
    """
    if not amount_usd.is_finite():
        raise ValueError(f"not an amount of money: {amount_usd}")
    return int((amount_usd * NANO_PER_USD).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd_text(amount_nano_usd: int) -> str:
    """The exact amount in USD as a plain decimal string, without trailing zeros (`"2.185"`)."""
    text = f"{Decimal(amount_nano_usd).scaleb(-9):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
