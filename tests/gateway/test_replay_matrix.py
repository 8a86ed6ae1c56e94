"""Every recorded answer through the real gateway, in every chunk size, cut anywhere, ended in
every way: one record each, with the provider's counts or marked as estimated, and not one byte
to the client that was not the provider's.

`make test` replays a sample that is the same on every run, `make test-full` all of it.
"""

import asyncio
import itertools
import random
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import pytest

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.semconv import ExchangeStatus, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord
from tests.support.gateway import running_gateway
from tests.support.replays import (
    Ending,
    Replay,
    ReplayUpstream,
    replay_upstream,
    replayed,
)
from tests.support.wire_corpus import EVENT_END, Case, cases, reported_after

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="asks the kernel what of a socket is unread"
)

CASES = [*cases("sse"), *cases("json")]
CUTS = (Ending.FIN, Ending.CUT, Ending.RST, Ending.LEAVES)
BATCH = 48
LARGE_BYTES = 200_000
LONGEST_TERMINATOR = len(b"\r\n\r\n")


async def test_any_chunk_size_and_packing_leaves_the_counts_and_the_bytes() -> None:
    await _check(_wholes(CASES, _few_sizes))


async def test_any_cut_leaves_one_honest_record() -> None:
    await _check(_cuts(CASES, CUTS, _few_places))


@pytest.mark.parametrize("ending", [Ending.SIGTERM, Ending.SIGKILL])
async def test_a_gateway_that_ends_leaves_one_honest_record_of_each(ending: Ending) -> None:
    await _check_endings(_cuts(CASES, (ending,), _few_places), ending)


@pytest.mark.full
@pytest.mark.timeout(7200)
async def test_every_chunk_size_leaves_the_counts_and_the_bytes() -> None:
    await _check(_wholes(CASES, _all_sizes))


@pytest.mark.full
@pytest.mark.timeout(7200)
async def test_a_cut_at_every_event_and_many_bytes_leaves_one_honest_record() -> None:
    await _check(_cuts(CASES, CUTS, _all_places))


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("ending", [Ending.SIGTERM, Ending.SIGKILL])
async def test_a_gateway_that_ends_anywhere_leaves_one_honest_record_of_each(
    ending: Ending,
) -> None:
    await _check_endings(_cuts(CASES, (ending,), _all_places), ending)


def _few_sizes(case: Case) -> list[int]:
    length = len(case.upstream)
    return [1, 7, length] if length < 8192 else [1021, length]


def _all_sizes(case: Case) -> Iterable[int]:
    length = len(case.upstream)
    return range(1, length + 1) if length < 8192 else (1, 997, 65_536, length)


def _few_places(case: Case, chance: random.Random) -> list[int]:
    places = [chance.randrange(len(case.upstream))]
    if case.event_ends:
        places += [chance.choice(case.event_ends), case.event_ends[-1]]
    return places


def _all_places(case: Case, chance: random.Random) -> list[int]:
    length = len(case.upstream)
    count = 50 if length < LARGE_BYTES else 5
    return [0, length, *case.event_ends, *(chance.randrange(length) for _ in range(count))]


_numbers = itertools.count(1)


def _wholes(found: Sequence[Case], sizes_of: object) -> Iterator[Replay]:
    for case in found:
        for size in sizes_of(case):  # type: ignore[operator]
            yield Replay(next(_numbers), case, Ending.WHOLE, chunk_bytes=size)
        for encoding in ("gzip", "deflate", "br"):
            yield Replay(next(_numbers), case, Ending.WHOLE, chunk_bytes=33, encoding=encoding)


def _cuts(found: Sequence[Case], endings: Sequence[Ending], places_of: object) -> Iterator[Replay]:
    for case in found:
        for ending in endings:
            chance = random.Random(zlib.crc32(f"{case.name} {ending}".encode()))
            for place in places_of(case, chance):  # type: ignore[operator]
                size = chance.choice((1, 64, 4096)) if len(case.upstream) < 8192 else 65_536
                yield Replay(next(_numbers), case, ending, cut=place, chunk_bytes=size)


async def _check(replays: Iterable[Replay]) -> None:
    """Replays in batches through one gateway, which is then told to finish."""
    done: list[Replay] = []
    async with replay_upstream() as (upstream, server):
        with running_gateway([_row(server.port)]) as gateway:
            for batch in _batches(replays):
                await replayed(batch, upstream, server.port, gateway)
                done += batch
            await asyncio.to_thread(gateway.finish)
            _check_all(done, gateway.exchanges())


async def _check_endings(replays: Iterable[Replay], ending: Ending) -> None:
    """Replays in batches, each through a gateway of its own that is ended in their middle."""
    async with replay_upstream() as (upstream, server):
        for batch in _batches(replays, 4 * BATCH):
            with running_gateway([_row(server.port)]) as gateway:
                sent = signal.SIGTERM if ending is Ending.SIGTERM else signal.SIGKILL
                await replayed(
                    batch,
                    upstream,
                    server.port,
                    gateway,
                    stop_gateway=lambda: gateway.process.send_signal(sent),  # noqa: B023
                )
                await asyncio.to_thread(gateway.process.wait, 60)
                if ending is Ending.SIGKILL:
                    assert gateway.exchanges() == []
                    await _start_again(upstream, server.port)
                _check_all(batch, gateway.exchanges())


async def _start_again(upstream: ReplayUpstream, port: int) -> None:
    with running_gateway([_row(port)]) as next_one:
        await asyncio.to_thread(next_one.finish)
        assert next_one.exchanges() == []


def _row(port: int) -> ProviderRow:
    return ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{port}/v1")


def _batches(replays: Iterable[Replay], size: int = BATCH) -> Iterator[list[Replay]]:
    rest = iter(replays)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _check_all(replays: Sequence[Replay], rows: Sequence[ExchangeRecord]) -> None:
    generated = [row for row in rows if row.conversation_id is not None]
    counts = Counter(row.conversation_id for row in generated)
    assert set(counts.values()) == {1}, "more than one record of an exchange"
    by_conversation = {row.conversation_id: row for row in generated}
    assert by_conversation.keys() == {replay.conversation for replay in replays}
    for replay in replays:
        row = by_conversation[replay.conversation]
        _check_counts(replay, row)
        _check_bytes(replay)
        _check_end(replay, row)


def _check_counts(replay: Replay, row: ExchangeRecord) -> None:
    """The provider's final counts if they came, and else something that is not called theirs."""
    if replay.status >= 400 and replay.ending is not Ending.SIGKILL:
        assert (row.usage, row.cost_nano_usd) == (TokenUsage(), 0), str(replay)
        return
    final = _final_counts(replay)
    if row.usage_quality is UsageQuality.REPORTED:
        told = [TokenUsage(**usage) for usage in final if usage is not None]
        assert row.usage in told, f"{replay}: {row.usage}"
    else:
        assert None in final or not final, f"{replay}: {row.usage_quality}"
        assert row.usage_quality is not UsageQuality.UNKNOWN, str(replay)
        assert row.usage.input_tokens is not None, str(replay)


def _final_counts(replay: Replay) -> list[dict[str, int] | None]:
    """What the record may say; `None` stands for an estimate, and nothing for only that."""
    case = replay.case
    if replay.ending is Ending.SIGKILL:
        return []
    if case.kind == "json":
        is_there = replay.cut >= len(case.upstream)
        is_reported = case.expected["usage_quality"] == UsageQuality.REPORTED
        return [case.expected["usage"]] if is_there and is_reported else []
    usages = [reported_after(case, replay.whole_events)]
    if any(0 < end - replay.cut <= LONGEST_TERMINATOR for end in case.event_ends):
        # Its data is there and only its blank line is missing: both are right.
        usages.append(reported_after(case, replay.whole_events + 1))
    if replay.ending not in (Ending.WHOLE, Ending.FIN) and case.upstream[: replay.cut].endswith(
        b"\r"
    ):
        # Whether a lone CR ends the event is told by what follows it.
        usages.append(reported_after(case, replay.whole_events - 1))
    return [] if usages == [None] else usages


def _check_bytes(replay: Replay) -> None:
    """A prefix of what was sent, or of what stands in the corpus as its repaired form."""
    sent, client, received = replay.sent, replay.case.client, replay.received
    if replay.encoding is not None:
        assert received == sent, str(replay)
        return
    ends = [match.end() for match in EVENT_END.finditer(received)]
    whole = received[: ends[-1]] if ends else b""
    assert client.startswith(whole) or sent.startswith(whole), f"{replay}: {received[-200:]!r}"
    assert received[len(whole) :] in sent, f"{replay}: {received[-200:]!r}"
    if not replay.case.is_repaired:
        assert sent.startswith(received), str(replay)
        if replay.ending in (Ending.WHOLE, Ending.FIN):
            assert received == sent, str(replay)
        elif replay.ending is Ending.CUT and replay.case.kind == "sse":
            # Behind a lone CR an event has ended only when something else follows.
            ends = [end for end in replay.case.event_ends if end < replay.cut]
            assert len(received) >= max(ends, default=0), str(replay)
    elif replay.ending is Ending.WHOLE:
        assert received == client, str(replay)


def _check_end(replay: Replay, row: ExchangeRecord) -> None:
    """A clean end only where the answer itself has one, and a record that says how it ended."""
    case = replay.case
    if replay.ending is Ending.SIGTERM and not _has_end(replay):
        assert row.status is ExchangeStatus.INTERRUPTED, str(replay)
    elif replay.ending is Ending.SIGKILL:
        assert (row.status, row.error_type) == (ExchangeStatus.INTERRUPTED, "gateway_died")
    if replay.ending not in (Ending.WHOLE, Ending.FIN):
        assert not replay.is_clean, str(replay)
        assert row.status is not ExchangeStatus.OPEN
        return
    if case.kind == "json":
        return
    if replay.cut >= len(case.upstream) or replay.cut in case.event_ends:
        assert replay.is_clean == _has_end(replay), str(replay)
    if not replay.is_clean:
        assert row.status is not ExchangeStatus.COMPLETED, str(replay)


def _has_end(replay: Replay) -> bool:
    """Whether the answer's own end is among what is sent, and one the client can read."""
    case = replay.case
    if replay.encoding is not None and case.expected["repaired"]:
        return False
    return case.ends_at_event is not None and replay.whole_events >= case.ends_at_event
