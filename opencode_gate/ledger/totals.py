"""Sums over exchanges, by the rules every table, summary and document shares.

The idea: one definition of what counts, written twice (here for records, in SQL for whole
ledgers) and held together by a test. The rules:

- a *request* is a generation call that was not denied; listings and token counts are none;
- a denied exchange costs nothing and counts nowhere;
- a cost is *asked for* by a request, unless the provider refused it (an HTTP error and no
  usage: nothing was billed), and by anything else that came back with a cost;
- a sum is the sum of what is known; it is `None` only if nothing is known, and never zero
  instead; its quality is the worst of its parts.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from opencode_gate.core.errors import UsageError
from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation
from opencode_gate.core.usage import sum_known
from opencode_gate.ledger.records import ExchangeRecord

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

GROUPINGS = (
    "model",
    "provider",
    "key",
    "session",
    "project",
    "repository",
    "branch",
    "commit",
    "day",
    "hour",
    "user",
    "agent",
    "conversation",
    "kind",
    "mode",
    "vkey",
    "team",
    "customer",
)
"""What usage can be grouped by.

A key is the provider's, a vkey one of this gateway. A model is `provider/model`; a day is
`YYYY-MM-DD` and an hour (of any day) `HH`, both local.
"""

_WORST_LAST = tuple(CostQuality)


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums in tokens and nano-dollars; `None` where nothing is known.

    Attributes:
        requests: generation calls that were not denied.
        cost_quality: the worst quality among what should have a cost; `UNKNOWN` for nothing.
        unknown_cost_requests: how many should have a cost and have none.
    """

    requests: int = 0
    input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_output_tokens: int | None = None
    cost_nano_usd: int | None = None
    cost_quality: CostQuality = CostQuality.UNKNOWN
    unknown_cost_requests: int = 0


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which exchanges, grouped how.

    Attributes:
        since_us: the first microsecond (UTC) that counts, `None` for the beginning.
        until_us: the first microsecond that no longer counts, `None` for no end.
        by: names out of `GROUPINGS`; none gives one row over everything.
        session_ids: only these sessions, whole ids; `None` for all.
        time_zone: IANA name of the zone whose days and hours are meant.

    Raises:
        UsageError: an unknown grouping or time zone.
    """

    since_us: int | None = None
    until_us: int | None = None
    by: tuple[str, ...] = ()
    session_ids: tuple[str, ...] | None = None
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        for name in self.by:
            if name not in GROUPINGS:
                raise UsageError(
                    "usage",
                    f"usage cannot be grouped by {name!r}",
                    hint=f"choose from {', '.join(GROUPINGS)}",
                )
        _ = self.zone

    @property
    def zone(self) -> "ZoneInfo":
        """The time zone itself."""
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise UsageError(
                "usage",
                f"no time zone is called {self.time_zone!r}",
                hint="use an IANA name such as Europe/Berlin",
            ) from error


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of one group; `key` has a value per name of the query's `by`."""

    key: Mapping[str, str | None]
    totals: Totals


def total_of(records: Iterable[ExchangeRecord]) -> Totals:
    """The totals of some exchanges."""
    counted = [record for record in records if record.status is not ExchangeStatus.DENIED]
    costed = [record for record in counted if asks_for_cost(record)]
    usages = [record.usage for record in counted]
    return Totals(
        requests=sum(record.operation is Operation.GENERATE for record in counted),
        input_tokens=sum_known(*(usage.input_tokens for usage in usages)),
        cache_read_input_tokens=sum_known(*(usage.cache_read for usage in usages)),
        cache_creation_input_tokens=sum_known(
            *(usage.cache_creation_input_tokens for usage in usages)
        ),
        output_tokens=sum_known(*(usage.output for usage in usages)),
        reasoning_output_tokens=sum_known(*(usage.reasoning for usage in usages)),
        cost_nano_usd=sum_known(*(record.cost_nano_usd for record in costed)),
        cost_quality=worst_quality(quality_of(record) for record in costed),
        unknown_cost_requests=sum(record.cost_nano_usd is None for record in costed),
    )


def sum_of(some: Iterable[Totals]) -> Totals:
    """The totals of parts that share no exchange, taken together."""
    parts = [part for part in some if part != Totals()]
    return Totals(
        requests=sum(part.requests for part in parts),
        input_tokens=sum_known(*(part.input_tokens for part in parts)),
        cache_read_input_tokens=sum_known(*(part.cache_read_input_tokens for part in parts)),
        cache_creation_input_tokens=sum_known(
            *(part.cache_creation_input_tokens for part in parts)
        ),
        output_tokens=sum_known(*(part.output_tokens for part in parts)),
        reasoning_output_tokens=sum_known(*(part.reasoning_output_tokens for part in parts)),
        cost_nano_usd=sum_known(*(part.cost_nano_usd for part in parts)),
        cost_quality=worst_quality(
            part.cost_quality
            for part in parts
            # Nothing in it asked for a cost: its `UNKNOWN` is none.
            if part.cost_nano_usd is not None or part.unknown_cost_requests
        ),
        unknown_cost_requests=sum(part.unknown_cost_requests for part in parts),
    )


def asks_for_cost(record: ExchangeRecord) -> bool:
    """Whether a cost is expected of this exchange (see the module's rules)."""
    if record.status is ExchangeStatus.DENIED:
        return False
    if record.cost_nano_usd is not None:
        return True
    refused = record.http_status is not None and record.http_status >= 400 and record.usage.is_empty
    return record.operation is Operation.GENERATE and not refused


def quality_of(record: ExchangeRecord) -> CostQuality:
    """The quality of one exchange's cost: `UNKNOWN` whenever there is no amount."""
    return CostQuality.UNKNOWN if record.cost_nano_usd is None else record.cost_quality


def worst_quality(qualities: Iterable[CostQuality]) -> CostQuality:
    """The worst of some qualities; `UNKNOWN` if there are none."""
    return max(qualities, key=_WORST_LAST.index, default=CostQuality.UNKNOWN)
