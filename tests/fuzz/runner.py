"""Throws bytes at an edge of the gateway where strangers' bytes come in, and sees what comes of it.

An edge takes one input and returns what came of it, as something small that can be compared; it
raises if a promise is broken. Inputs are mutations of what is on hand; one that had come to
something new is kept and mutated further. The same seed gives the same inputs.

    python -m tests.fuzz [EDGE ...] [--inputs 1000000] [--seed 0]
"""

import asyncio
import faulthandler
import resource
import sys
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

KEPT = 4096
"""So many inputs are mutated further at the most."""

INPUT_LIMIT_BYTES = 1024
HANG_S = 60
"""A thousand inputs that take longer end the process, with all stacks on its standard error."""


class Edge(Protocol):
    """What is thrown at.

    Attributes:
        seeds: inputs to begin with.
        words: what the language of the edge is made of, to be put in anywhere.
    """

    name: str
    seeds: Sequence[bytes]
    words: Sequence[bytes]

    async def take(self, data: bytes, random: Random) -> Hashable:
        """What came of an input; `random` decides how it is cut.

        Raises:
            AssertionError: a promise is broken.
        """
        ...


@dataclass(frozen=True)
class Broken(Exception):
    """A promise was broken, by this input."""

    edge: str
    data: bytes
    number: int

    def __str__(self) -> str:
        return f"{self.edge}, input {self.number}: {self.data!r}"


@dataclass(frozen=True)
class Report:
    """How a run went."""

    edge: str
    inputs: int
    outcomes: int
    seconds: float
    grown_kib: int
    """By which the process was larger at its largest than after the first thousand inputs."""


def run(edge: Edge, inputs: int, seed: int = 0) -> Report:
    """Throws `inputs` inputs.

    Raises:
        Broken: the first one that broke a promise, with what it was as its cause.
    """

    try:
        return asyncio.run(_run(edge, inputs, seed))
    finally:
        faulthandler.cancel_dump_traceback_later()


async def _run(edge: Edge, inputs: int, seed: int) -> Report:
    random = Random(seed)
    known = list(edge.seeds)
    outcomes: set[Hashable] = set()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
    started, size = time.monotonic(), 0
    for number in range(inputs):
        if number % 1000 == 0:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
        if number == 1000:
            size = _largest_kib()
        data = known[number] if number < len(edge.seeds) else mutated(known, edge.words, random)
        try:
            outcome = await edge.take(data, random)
            if complaints:
                raise AssertionError(complaints) from complaints[0].get("exception")
        except (Exception, asyncio.CancelledError) as error:
            raise Broken(edge.name, data, number) from error
        if outcome not in outcomes and len(known) < KEPT:
            outcomes.add(outcome)
            known.append(data)
    seconds = time.monotonic() - started
    return Report(edge.name, inputs, len(outcomes), seconds, _largest_kib() - size)


def mutated(known: Sequence[bytes], words: Sequence[bytes], random: Random) -> bytes:
    """One of those that are known, changed in one to six places."""
    data = bytearray(random.choice(known))
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        at = random.randrange(len(data) + 1)
        length = random.choice((1, 1, 2, 4, 16, 64))
        match random.randrange(9):
            case 0:
                data[at:at] = random.choice(words)
            case 1:
                data[at : at + length] = random.choice(words)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * random.choice((1, 1, 2, 8))
            case 4:
                data[at : at + 1] = bytes((random.randrange(256),))
            case 5:
                data[at : at + 1] = random.choice((b"\r", b"\n", b" ", b":", b"0", b",", b"\0"))
            case 6:
                other = random.choice(known)
                data[at:] = other[random.randrange(len(other) + 1) :]
            case 7:
                data += random.choice(known)
            case _:
                del data[at:]
    return bytes(data[:INPUT_LIMIT_BYTES])


def pieces(data: bytes, random: Random) -> list[bytes]:
    """The same bytes, as a network may cut them."""
    match random.randrange(3):
        case 0:
            at = random.randrange(len(data) + 1)
            cut = [data[:at], data[at:]]
        case 1:
            size = random.choice((1, 2, 3, 7, 16, 61))
            cut = [data[at : at + size] for at in range(0, len(data), size)]
        case _:
            cuts = sorted(random.randrange(len(data) + 1) for _ in range(4))
            cut = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    return [piece for piece in cut if piece]


def _largest_kib() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest // 1024 if sys.platform == "darwin" else largest
