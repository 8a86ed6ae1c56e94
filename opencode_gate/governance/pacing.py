"""The rate step: a request waits for its turn where that comes soon, and is refused otherwise.

The invariants: nothing is sent to the client while it waits, so a refusal stays possible; a slot
is freed however a request ends; what a request counts for is the tokens it had, once these are
known.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterable

from opencode_gate.core.clock import Clock
from opencode_gate.core.tasks import spawn
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.grants import Ask, Grant
from opencode_gate.governance.rates import OwnedLimit, Rates, Ticket
from opencode_gate.governance.rulebook import Law
from opencode_gate.wire.estimates import estimated_tokens

LOOK_AGAIN_S = 0.01
"""How soon a request that waits sees what another process has freed."""
WAIT_S = 10.0
"""A limit that clears within this is waited out."""
RETRY_AFTER_MAX_S = 60.0
"""Opencode waits for `retry-after` without a word; beyond this a refusal is final."""
UNSETTLED_MAX = 65_536
"""While nothing is settled, as many requests wait for it; the oldest count as they were thought."""
RETRY_AFTER_SLOT_S = 5
"""When to come back where nobody knows when a slot is free."""


class Pacing:
    """Keeps requests to the rate limits of their owners."""

    def __init__(self, rates: Rates, clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._freed = asyncio.Event()
        self._unsettled: dict[str, Ticket] = {}
        self._waiting = 0
        self._seen: int | None = None
        self._watching: asyncio.Task[None] | None = None

    def admit_now(self, law: Law, ask: Ask, grant: Grant, now_s: float) -> bool:
        """Counts a request against its limits if it fits under all of them without waiting."""
        facts = ask.facts
        tokens = 0
        if facts is not None:
            tokens = estimated_tokens(facts.input_bytes, ask.route.wire_format)
        ticket = self._rates.take_now(law.limits, now_s, tokens)
        if ticket is None:
            return False
        self._taken(grant, ticket)
        return True

    async def admit(self, law: Law, ask: Ask, grant: Grant) -> None:
        """Counts a request against its limits, once it fits under them.

        Raises:
            Denied: that takes too long.
        """
        tokens = 0
        if ask.facts is not None:
            tokens = estimated_tokens(ask.facts.input_bytes, ask.route.wire_format)
        began_s = now_s = self._clock.monotonic_s()
        held_by: OwnedLimit | None = None
        while True:
            if not self._waiting:
                self._seen = self._rates.changes
            ticket, shadowed, wait_s, which = self._rates.take_turn(law.limits, now_s, tokens)
            if ticket is not None:
                break
            assert which is not None
            left_s = began_s + WAIT_S - now_s
            if left_s <= 0 or (wait_s > left_s and not math.isinf(wait_s)):
                raise self._refusal(which, wait_s, tokens)
            held_by = which
            await self._wait(min(wait_s, left_s))
            now_s = self._clock.monotonic_s()
        self._taken(grant, ticket)
        if held_by is not None:
            owner, limit = held_by
            grant.decisions.append(
                sentences.rate_limited(owner, limit, outcome="wait", wait_s=now_s - began_s)
            )
        for owner, limit in shadowed:
            grant.decisions.append(sentences.rate_limited(owner, limit))

    async def _wait(self, timeout_s: float) -> None:
        """Waits until something has become free, here or in another process."""
        self._freed.clear()
        if self._seen is not None and (self._watching is None or self._watching.done()):
            self._watching = spawn(self._watch(self._seen), name="rates")
        self._waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), timeout_s)
        finally:
            self._waiting -= 1

    async def _watch(self, seen: int | None) -> None:
        """While requests wait: looks for what other processes have freed."""
        while self._waiting:
            if self._rates.changes != seen:
                seen = self._rates.changes
                self._freed.set()
            await asyncio.sleep(LOOK_AGAIN_S)

    def _taken(self, grant: Grant, ticket: Ticket) -> None:
        grant.ticket = ticket
        if ticket.tokens:
            self._unsettled[grant.exchange_id] = ticket
            if len(self._unsettled) > UNSETTLED_MAX:
                del self._unsettled[next(iter(self._unsettled))]

    def ended(self, grant: Grant, *, was_sent: bool) -> None:
        """Frees the slots of a request; one that was never sent counts for no tokens."""
        if grant.ticket is None:
            return
        grant.ticket.release()
        if not was_sent:
            self._unsettled.pop(grant.exchange_id, None)
            grant.ticket.settle(0)
        if not self._freed.is_set():
            self._freed.set()

    @property
    def is_waiting_for_tokens(self) -> bool:
        """Whether some exchange counts for tokens that were only thought."""
        return bool(self._unsettled)

    def settle(self, tokens: Iterable[tuple[str, int | None]]) -> None:
        """Takes note of the tokens exchanges had, by their ids; `None` leaves what was thought."""
        for exchange_id, counted in tokens:
            ticket = self._unsettled.pop(exchange_id, None)
            if ticket is not None and counted is not None:
                ticket.settle(counted)

    def _refusal(self, which: OwnedLimit, wait_s: float, tokens: int) -> Denied:
        owner, limit = which
        decision = sentences.rate_limited(
            owner, limit, wait_s=wait_s, tokens=tokens, now_us=self._clock.now_us()
        )
        if math.isinf(wait_s):
            return Denied(
                decision,
                http_status=429,
                error_type="rate_limit_error",
                retry_after_s=RETRY_AFTER_SLOT_S,
            )
        if wait_s <= RETRY_AFTER_MAX_S:
            return Denied(
                decision,
                http_status=429,
                error_type="rate_limit_error",
                retry_after_s=math.ceil(wait_s),
            )
        return Denied(decision, http_status=402, error_type="insufficient_quota")
