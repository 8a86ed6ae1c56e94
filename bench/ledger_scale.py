"""How a ledger of millions of exchanges answers, and what one more exchange costs it.

A ledger is filled with a year of made-up sessions, rows going in by the statements the gateway
uses, with all indexes and kept sums on. Measured: the commands as a user runs them, beside the bare
`ogate --version`; the queries behind them, in this process; and the folding of 1,000 more exchanges
in one batch and by batches of 10. Every figure is of this machine in this run.

    python -m bench.ledger_scale [--exchanges 1000000] [--runs 11] [--keep FOLDER] [--out FOLDER]

With `--keep` the ledger stays in that folder, and one of that size that is there already is used.
"""

import argparse
import itertools
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.figures import Interval, median_of, millis, publish, table
from bench.programs import environment
from opencode_gate.core.ids import new_ulid
from opencode_gate.core.semconv import (
    ConversationKind,
    CostQuality,
    ExchangeStatus,
    Operation,
    UsageQuality,
    WireFormat,
)
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.exchange_query import ExchangeQuery
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.ledger.sqlite import queries
from opencode_gate.ledger.sqlite.connection import connect
from opencode_gate.ledger.sqlite.rows import EXCHANGE_COLUMNS, exchange_row, session_row
from opencode_gate.ledger.sqlite.store import SqliteStore
from opencode_gate.ledger.totals import UsageQuery

YEAR_US = 365 * 86_400_000_000
A_SESSION = 75
"""Exchanges in a session, one every half minute."""

_MODELS = (
    ("anthropic", "claude-sonnet-5", "claude-haiku-5"),
    ("anthropic", "claude-opus-5", "claude-haiku-5"),
    ("openai", "gpt-6", "gpt-6-mini"),
    ("openrouter", "deepseek/deepseek-v4", "qwen/qwen4-flash"),
    ("google", "gemini-3.5-pro", "gemini-3.5-flash"),
    ("ollama", "qwen4-coder:30b", "qwen4-coder:30b"),
)
_ENDS = (
    *[(ExchangeStatus.COMPLETED, 200, None, UsageQuality.REPORTED)] * 96,
    *[(ExchangeStatus.CLIENT_DISCONNECTED, 200, None, UsageQuality.ESTIMATED)] * 2,
    (ExchangeStatus.UPSTREAM_ERROR, 429, "http_429", UsageQuality.UNKNOWN),
    (ExchangeStatus.UPSTREAM_ERROR, 502, "connect", UsageQuality.UNKNOWN),
)
_BATCH = 50_000


def fill(path: Path, exchanges: int, now_us: int) -> None:
    """A year of sessions up to now, as many side by side as it takes."""
    chance = random.Random(1)
    connection = connect(path)
    # Only here: a fill that is cut short is thrown away.
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -200000")
    rows = _rows(chance, exchanges, now_us)
    done = 0
    while batch := list(itertools.islice(rows, _BATCH)):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            queries.INSERT_SESSION, (session_row(session) for session, _ in batch if session)
        )
        connection.executemany(queries.FOLD_EXCHANGE, (row for _, row in batch))
        connection.execute("COMMIT")
        done += len(batch)
        print(f"\r{done:,} of {exchanges:,}", end="", file=sys.stderr)
    print(file=sys.stderr)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _rows(
    chance: random.Random, exchanges: int, now_us: int
) -> Iterator[tuple[SessionRecord | None, list[Any]]]:
    """Rows in the order of their starts, the first of a session with the session."""
    step_us = YEAR_US / exchanges
    side_by_side = max(1, round(30_000_000 / step_us))
    current: list[tuple[SessionRecord, tuple[str, str, str]]] = []
    template = list(exchange_row(an_exchange("", now_us)))
    place = {name: EXCHANGE_COLUMNS.index(name) for name in EXCHANGE_COLUMNS}
    for number in range(exchanges):
        started_at_us = now_us - YEAR_US + round(number * step_us)
        lane, turn = number % side_by_side, number // side_by_side % A_SESSION
        opened = None
        if turn == 0:
            opened = a_session(started_at_us, number)
            current[lane : lane + 1] = [(opened, chance.choice(_MODELS))]
        session, (provider_name, model, small_model) = current[lane]
        status, http_status, error_type, quality = chance.choice(_ENDS)
        is_title = turn == 1
        is_known = quality is not UsageQuality.UNKNOWN
        row = template.copy()
        row[place["id"]] = f"{started_at_us // 1000:012X}{number:014d}"
        row[place["session_id"]] = session.id
        row[place["conversation_id"]] = f"ses_{session.id[-8:]}"
        row[place["kind"]] = (ConversationKind.TITLE if is_title else chance.choice(_KINDS)).value
        row[place["mode"]] = chance.choice(("plan", "build"))
        row[place["provider_name"]] = provider_name
        row[place["request_model"]] = small_model if is_title else model
        row[place["response_model"]] = row[place["request_model"]] if is_known else None
        row[place["status"]] = status.value
        row[place["http_status"]] = http_status
        row[place["error_type"]] = error_type
        row[place["started_at_us"]] = started_at_us
        row[place["input_uncached_tokens"]] = chance.randrange(5000) if is_known else None
        row[place["cache_read_input_tokens"]] = 400 * turn if is_known else None
        row[place["output_tokens"]] = chance.randrange(900) if is_known else None
        row[place["usage_quality"]] = quality.value
        is_priced = is_known and provider_name != "ollama"
        row[place["cost_nano_usd"]] = chance.randrange(10**8) if is_priced else None
        row[place["cost_quality"]] = (
            CostQuality.UNKNOWN
            if not is_priced
            else CostQuality.PRICED
            if quality is UsageQuality.REPORTED
            else CostQuality.ESTIMATED
        ).value
        yield opened, row


_KINDS = (*[ConversationKind.MAIN] * 7, *[ConversationKind.SUBAGENT] * 3)


def a_session(started_at_us: int, number: int) -> SessionRecord:
    """A session of one of five people in one of forty projects."""
    return SessionRecord(
        id=f"{started_at_us // 1000:012X}{number:014d}",
        user=f"person-{number % 5}",
        agent="opencode",
        agent_version="1.18.33",
        directory=f"/home/you/project-{number % 40}",
        project=f"project-{number % 40}",
        branch="main",
        time_zone="Europe/Berlin",
        started_at_us=started_at_us,
        ended_at_us=started_at_us + A_SESSION * 30_000_000,
        exit_status=0,
    )


def an_exchange(session_id: str, started_at_us: int) -> ExchangeRecord:
    """What most of them are."""
    return ExchangeRecord(
        id=new_ulid(),
        session_id=session_id,
        operation=Operation.GENERATE,
        wire_format=WireFormat.ANTHROPIC_MESSAGES,
        provider_name="anthropic",
        request_model="claude-sonnet-5",
        response_model="claude-sonnet-5",
        streamed=True,
        status=ExchangeStatus.COMPLETED,
        http_status=200,
        attempts=1,
        started_at_us=started_at_us,
        time_to_first_chunk_us=900_000,
        duration_us=9_000_000,
        usage=TokenUsage(input_uncached=1000, cache_read=30_000, output=500),
        usage_quality=UsageQuality.REPORTED,
        raw_usage='{"input_tokens":1000,"cache_read_input_tokens":30000,"output_tokens":500}',
        cost_nano_usd=12_345_678,
        cost_quality=CostQuality.PRICED,
        price_source="genai-prices 0.2.3",
    )


def measure_commands(home: Path, runs: int) -> dict[str, Interval]:
    """Whole commands, interleaved: the time from start to end, and the processor's share of it."""
    ogate = str(Path(sysconfig.get_path("scripts"), "ogate"))
    environ = environment(home)
    commands = {
        " ".join(["ogate", *words]): [ogate, *words]
        for words in (
            ["--version"],
            ["usage", "--today"],
            ["usage", "--month", "--by", "model"],
            ["sessions", "list"],
            ["logs", "list"],
        )
    }
    walls: dict[str, list[float]] = {name: [] for name in commands}
    busy: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            before, started = _children_s(), time.perf_counter()
            done = subprocess.run(
                command, env=environ, capture_output=True, stdin=subprocess.DEVNULL, check=False
            )
            wall_s = time.perf_counter() - started
            if done.returncode != 0:
                raise SystemExit(f"{name} failed: {done.stderr.decode()}")
            if number:  # the first run warms the page cache
                walls[name].append(wall_s)
                busy[name].append(_children_s() - before)
    figures = {name: median_of(values) for name, values in walls.items()}
    return figures | {f"{name}, processor": median_of(values) for name, values in busy.items()}


def _children_s() -> float:
    """Processor time of all programs that were run from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_queries(path: Path, runs: int, now_us: int) -> dict[str, Interval]:
    """The queries alone; the store is opened anew for each, as a command does."""
    day_us = 86_400_000_000
    today = UsageQuery(since_us=now_us - now_us % day_us, by=("model",))
    month = UsageQuery(since_us=now_us - 30 * day_us, by=("model",))
    zone = "Europe/Berlin"
    asked: dict[str, Callable[[SqliteStore], object]] = {
        "today by model": lambda store: store.usage(today),
        "30 days by model": lambda store: store.usage(month),
        "30 days by day": lambda store: store.usage(replace(month, by=("day",), time_zone=zone)),
        "30 days by model and hour": lambda store: store.usage(
            replace(month, by=("model", "hour"), time_zone=zone)
        ),
        "all time by model": lambda store: store.usage(UsageQuery(by=("model",))),
        "30 days by project (from rows)": lambda store: store.usage(
            replace(month, by=("project",))
        ),
        "latest 50 calls": lambda store: store.find(ExchangeQuery(limit=50)),
        "latest 50 failures": lambda store: store.find(
            ExchangeQuery(limit=50, statuses=(ExchangeStatus.UPSTREAM_ERROR,))
        ),
    }
    walls: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(runs + 1):
        for name, ask in asked.items():
            store = SqliteStore(connect(path), path)
            started = time.perf_counter()
            ask(store)
            if number:
                walls[name].append(time.perf_counter() - started)
            store.close()
    return {name: median_of(values) for name, values in walls.items()}


def measure_folding(path: Path, runs: int, now_us: int) -> dict[str, Interval]:
    """What 1,000 more exchanges cost, in one batch and in a hundred."""
    store = SqliteStore(connect(path), path)
    walls: dict[int, list[float]] = {1000: [], 10: []}
    for _ in range(runs):
        for size, taken in walls.items():
            more = [an_exchange("more", now_us + number) for number in range(1000)]
            started = time.perf_counter()
            for batch in range(0, 1000, size):
                store.fold(more[batch : batch + size])
            taken.append(time.perf_counter() - started)
    store.close()
    return {f"1,000 rows, {size} a batch": median_of(taken) for size, taken in walls.items()}


def main() -> None:
    """Fills, measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--keep", type=Path, help="a folder the ledger stays in")
    parser.add_argument("--out", type=Path, help="a folder for the figures as JSON and Markdown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ogate-bench-") as scratch:
        home = Path(scratch) if arguments.keep is None else arguments.keep
        report(home, arguments.exchanges, arguments.runs, arguments.out)


def report(home: Path, exchanges: int, runs: int, out: Path | None) -> None:
    """One ledger's figures."""
    path = ledger_of(home)
    now_us = time.time_ns() // 1000
    if not path.exists():
        path.parent.mkdir(parents=True, mode=0o700)
        fill(path, exchanges, now_us)
    folding = measure_folding(path, runs, now_us)
    found = measure_commands(home, runs) | measure_queries(path, runs, now_us) | folding
    size_bytes = path.stat().st_size
    rows = [
        [name, millis(some.value), f"{millis(some.low)} to {millis(some.high)}"]
        for name, some in found.items()
    ]
    heading = f"{exchanges:,} exchanges, {size_bytes / 1e9:.2f} GB"
    document: dict[str, Any] = {"exchanges": exchanges, "bytes": size_bytes}
    document |= {name: [some.value, some.low, some.high] for name, some in found.items()}
    publish("ledger-scale", document, table([heading, "median", "95 %"], rows), out)


def ledger_of(home: Path) -> Path:
    """Where the commands of that home look for their ledger."""
    return Path(environment(home)["OGATE_HOME"]) / "data" / "ledger.db"


if __name__ == "__main__":
    main()
