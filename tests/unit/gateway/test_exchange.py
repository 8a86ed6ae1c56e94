"""One exchange leaves one record, whatever happens at its end."""

import time

import pytest

from opencode_gate.core.clock import SystemClock
from opencode_gate.core.semconv import ExchangeStatus, Operation
from opencode_gate.core.usage import TokenUsage
from opencode_gate.gateway.exchange import Exchange
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.grants import Grant
from opencode_gate.ledger.records import Charge, ExchangeRecord
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.meter import ExchangeMeter
from opencode_gate.wire.routes import identify
from tests.support.ledger_records import an_exchange

BODY = b'{"model":"m","messages":[]}'


class Written:
    """A recorder that remembers."""

    def __init__(self, *, can_write: bool = True) -> None:
        self.records: list[ExchangeRecord] = []
        self.can_write = can_write

    def opened(self, record: ExchangeRecord, *, input_bytes: int | None) -> bool:
        return self.can_write

    def progressed(self, exchange_id: str, usage: TokenUsage, chars: int) -> None: ...

    def finished(self, record: ExchangeRecord, body: bytes, meter: ExchangeMeter | None) -> None:
        self.records.append(record)


class Broken:
    """A rule with a fault in it."""

    def is_used_up(self, grant: Grant, meter: ExchangeMeter) -> bool:
        return False

    def ended(self, grant: Grant, record: ExchangeRecord) -> None:
        raise ZeroDivisionError


def an_exchange_of(written: Written) -> Exchange:
    facts = read_facts(identify("POST", "/v1/chat/completions"), BODY)
    record = an_exchange(status=ExchangeStatus.OPEN, operation=Operation.GENERATE)
    grant = Grant(record.id)
    return Exchange(record, BODY, facts, written, SystemClock(), Broken(), time.monotonic(), grant)


def test_under_a_budget_nothing_is_sent_that_a_crash_would_leave_no_trace_of() -> None:
    exchange = an_exchange_of(Written(can_write=False))
    exchange.opened()
    exchange.grant.charges = (Charge("user:dev/day/usd", 0, "usd", 100),)
    with pytest.raises(Denied) as refusal:
        exchange.opened()
    assert (refusal.value.code, exchange.attempts) == ("ledger-locked", 0)


def test_a_rule_that_fails_at_the_end_loses_no_record() -> None:
    written = Written()
    exchange = an_exchange_of(written)
    with pytest.raises(ZeroDivisionError):
        exchange.finish(ExchangeStatus.COMPLETED)
    exchange.finish(ExchangeStatus.INTERRUPTED)
    assert [one.status for one in written.records] == [ExchangeStatus.COMPLETED]
