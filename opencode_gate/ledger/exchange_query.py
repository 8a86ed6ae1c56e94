"""Which exchanges of the whole ledger somebody wants to see.

The idea: conditions that are given hold together, those that are `None` or empty ask for nothing.
"""

import msgspec

from opencode_gate.core.semconv import ExchangeStatus


class ExchangeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions on exchanges.

    Attributes:
        since_us: started at this microsecond (UTC) or later.
        until_us: started before this one.
        session_id: the whole id.
        model: as it was asked for or as it answered, with its provider in front or without.
        statuses: any of these.
        error: the exact `error_type` or `denial`, or the HTTP status in digits.
        min_cost_nano_usd: costs this much or more; what is unknown does not.
        max_cost_nano_usd: costs this much or less; what is unknown does not.
        before: started, or with the same start has an id, before `(started_at_us, id)`: the last
            row of a page leads to the next page.
        limit: at most so many.
    """

    since_us: int | None = None
    until_us: int | None = None
    session_id: str | None = None
    conversation_id: str | None = None
    provider_name: str | None = None
    model: str | None = None
    credential_name: str | None = None
    virtual_key: str | None = None
    team: str | None = None
    customer: str | None = None
    statuses: tuple[ExchangeStatus, ...] = ()
    error: str | None = None
    min_cost_nano_usd: int | None = None
    max_cost_nano_usd: int | None = None
    before: tuple[int, str] | None = None
    limit: int | None = None
