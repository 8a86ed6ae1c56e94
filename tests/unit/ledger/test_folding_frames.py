"""Frames between gateway and folding process: whole ones count, and only those."""

import io

from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.folding_frames import (
    Begin,
    Drained,
    Failing,
    Folded,
    Hurry,
    Problem,
    Submit,
    delivered_of,
    frame,
    orders,
    read_of,
    taken_reports,
)
from opencode_gate.ledger.records import FoldedExchange, Taken
from opencode_gate.wire.meter import Delivered

DELIVERED = Delivered(text="good \ud800 day", chars=10, seen=TokenUsage(output=3))
ORDERS = [
    (
        Begin(journal_dir="j", ledger_file="l", process_id="p", costs={"a": {"m": {"input": 1}}}),
        b"",
    ),
    (Submit(b'{"event":"finished"}', True, read_of(DELIVERED)), b"a body"),
    (Hurry(), b""),
]
REPORTS = [
    Folded([FoldedExchange("e", "s", (Taken("user:ada/day/usd", 7, 2, 1),), 5, None)]),
    Failing(Problem("ledger-unwritable", "full", None)),
    Drained(3),
]


def test_orders_cut_short_anywhere_are_heard_as_far_as_they_are_whole() -> None:
    """A gateway may be killed in the middle of telling."""
    pieces = [frame(order, len(body)) + body for order, body in ORDERS]
    ends = [sum(map(len, pieces[:count])) for count in range(len(pieces) + 1)]
    whole = b"".join(pieces)
    for size in range(len(whole) + 1):
        heard = list(orders(io.BytesIO(whole[:size])))
        assert heard == ORDERS[: sum(end <= size for end in ends) - 1]


def test_reports_are_taken_however_they_arrive() -> None:
    whole = b"".join(frame(report) for report in REPORTS)
    for step in range(1, len(whole) + 1):
        received = bytearray()
        heard = []
        for start in range(0, len(whole), step):
            received += whole[start : start + step]
            heard += taken_reports(received)
        assert heard == REPORTS
        assert not received


def test_what_an_answer_delivered_arrives_as_it_was() -> None:
    """Also text that is no Unicode: the hash of it must not depend on the way it went."""
    assert delivered_of(read_of(DELIVERED)) == DELIVERED
    assert delivered_of(read_of(None)) is None
