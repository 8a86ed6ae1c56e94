"""How numbers, money and times are written for people.

The invariant: what is not known is `?`, never a zero, and an amount that rounds to nothing says
that it is not nothing. JSON documents never come through here.
"""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

from opencode_gate.core.money import NANO_PER_USD
from opencode_gate.core.semconv import CostQuality

UNKNOWN = "?"
NOTHING = "–"


def count_text(count: int | None) -> str:
    """A count in three or four figures: `999`, `38.2 k`, `1.92 M`; `?` when unknown."""
    if count is None:
        return UNKNOWN
    if count < 1000:
        return str(count)
    if count < 999_950:
        return f"{count / 1e3:.1f} k"
    if count < 999_995_000:
        return f"{count / 1e6:.2f} M"
    return f"{count / 1e9:.2f} G"


def percent_text(part: int | None, whole: int | None) -> str:
    """A share: `100 %` and `0 %` only when it is exactly that; `–` of nothing."""
    if part is None or whole is None:
        return UNKNOWN
    if whole == 0:
        return NOTHING
    if part in (0, whole):
        return f"{100 * part // whole} %"
    return f"{min(99, max(1, round(100 * part / whole)))} %"


def money_text(
    amount_nano_usd: int | None,
    quality: CostQuality = CostQuality.PRICED,
    *,
    decimals: int = 3,
    unknown_requests: int = 0,
    unit: str = "$ ",
) -> str:
    """An amount in USD: `~` marks an estimated one, `?` an unknown one or an unknown part."""
    if amount_nano_usd is None:
        return UNKNOWN
    mark = "~" if quality is CostQuality.ESTIMATED else ""
    rest = f" + {UNKNOWN}" if unknown_requests else ""
    smallest = Decimal(1).scaleb(-decimals)
    rounded = (Decimal(amount_nano_usd) / NANO_PER_USD).quantize(smallest, ROUND_HALF_UP)
    if amount_nano_usd == 0:
        figure = f"{unit}0"
    elif rounded == 0:
        figure = f"< {unit}{smallest}"
    else:
        figure = f"{unit}{rounded:,}"
    return f"{mark}{figure}{rest}"


def brief_money(
    amount_nano_usd: int | None,
    quality: CostQuality = CostQuality.PRICED,
    *,
    unknown_requests: int = 0,
) -> str:
    """An amount inside a sentence: `$2.19`."""
    return money_text(
        amount_nano_usd, quality, decimals=2, unknown_requests=unknown_requests, unit="$"
    )


def duration_text(duration_us: int) -> str:
    """A length of time: `12 s`, `42 min`, `3 h 05 min`."""
    seconds = duration_us // 1_000_000
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def seconds_text(seconds: float) -> str:
    """A short time: `0.45 s`, `1.2 s`, `12 s`."""
    return (
        f"{seconds:.2f} s"
        if seconds < 1
        else f"{seconds:.1f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
    )


def brief_time_text(time_us: float) -> str:
    """A time that may be very short: `0.31 ms`, `2.40 ms`, `0.45 s`."""
    return f"{time_us / 1000:.2f} ms" if time_us < 10_000 else seconds_text(time_us / 1e6)


def time_text(time_us: int) -> str:
    """A moment in local time, to the minute."""
    return datetime.fromtimestamp(time_us / 1e6).strftime("%Y-%m-%d %H:%M")


def iso_text(time_us: int | None) -> str | None:
    """A moment for machines: ISO 8601 in UTC with microseconds."""
    if time_us is None:
        return None
    seconds, fraction_us = divmod(time_us, 1_000_000)
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction_us:06d}Z"


def short_id(session_id: str) -> str:
    """A session id as it is shown; the ledger understands this form too."""
    return f"{session_id[:4]}…{session_id[-4:]}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 retry`, `2 retries`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
