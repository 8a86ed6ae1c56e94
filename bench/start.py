"""What `ogate run` adds before the agent starts and after it has ended, and how quick commands are.

The agent is a stub that notes the time when it starts and before it ends, so that the
launcher's own time is left: from the execution of `ogate run` to that of the agent, and from the
agent's end to ours. The same stub alone, interleaved, gives what is taken off.

    python -m bench.start [--runs 15] [--opencode PATH [--rounds 10]] [--out FOLDER]

With `--opencode` the real one draws its screen and answers a prompt, alone and through `ogate`, in
turns: from the execution to the drawn prompt, and to the end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.drawn import time_until_drawn
from bench.figures import Interval, bootstrap, keep, machine, median_of, millis, table
from bench.programs import environment, origin

STUB_LIFE_S = 1.5
"""Long enough for the gateway to be up, as it is when a real agent ends."""

_LEDGER_EXCHANGES = 5000

_NAMED_PROVIDERS = {"enabled_providers": ["opencode", "bench"]}
"""What `ogate` tells Opencode of them in this measurement."""

_PROMPT = "Ask anything"
"""What Opencode's empty screen says where one types."""

_ABOUT = """\
# Start

What a person waits for around Opencode itself: written by `make bench-start`, with 95 % intervals.
The aims: the launcher's own time, Python's included, 120 ms together; `ogate --version` 25 ms over
bare Python, a command that draws a table 200 ms, completion 100 ms.

`ogate` names to Opencode the providers it has, which spares Opencode the work on all others it
knows: so its prompt may stand there sooner than alone. “Providers named” is Opencode alone, told
the same.

{machine}. Times of other machines do not compare; each table's rows were taken in turns.

{tables}
"""

_STUB = """#!/bin/sh
date +%s%N > "$BENCH_TIMES"
sleep {life_s}
date +%s%N >> "$BENCH_TIMES"
"""


def ogate() -> list[str]:
    """The installed command, as a user's shell finds it."""
    script = Path(sysconfig.get_path("scripts"), "ogate")
    if not script.exists():
        raise SystemExit(f"no {script}: install the package first")
    return [str(script)]


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds from execution to the stub's first word, and from its last word to the end."""

    before: float
    after: float


def stub_agent(folder: Path) -> Path:
    """An Opencode of the tested version that does nothing for a while."""
    package = folder / "opencode-ai"
    (package / "bin").mkdir(parents=True)
    identity = {"name": "opencode-ai", "version": "1.18.33"}
    (package / "package.json").write_text(json.dumps(identity), encoding="utf-8")
    program = package / "bin" / "opencode"
    program.write_text(_STUB.format(life_s=STUB_LIFE_S), encoding="utf-8")
    program.chmod(0o755)
    return program


def live(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Life:
    """Runs a command around the stub and takes its times."""
    times = folder / "times"
    times.unlink(missing_ok=True)
    started_ns = time.time_ns()
    done = subprocess.run(
        command,
        env={**environ, "BENCH_TIMES": str(times)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    ended_ns = time.time_ns()
    if done.returncode != 0 or not times.exists():
        raise SystemExit(f"{command} failed ({done.returncode}): {done.stderr.decode()}")
    first_ns, last_ns = (int(line) for line in times.read_text().split())
    return Life((first_ns - started_ns) / 1e9, (ended_ns - last_ns) / 1e9)


def launcher(runs: int, folder: Path) -> tuple[dict[str, Any], str]:
    """The launcher's own time."""
    stub = stub_agent(folder)
    environ = environment(folder)
    environ["PATH"] = f"{stub.parent}{os.pathsep}{environ.get('PATH', '')}"
    through = [*ogate(), "run", "--no-input", "--provider", "practice", "--summary", "table"]
    alone, around = [str(stub), "run", "hello"], [*through, "--", "run", "hello"]
    live(around, environ, folder)  # the first run makes folders and the ledger
    pairs = [(live(alone, environ, folder), live(around, environ, folder)) for _ in range(runs)]
    before = median_of([with_us.before - bare.before for bare, with_us in pairs])
    after = median_of([with_us.after - bare.after for bare, with_us in pairs])
    both = median_of(
        [with_us.before - bare.before + with_us.after - bare.after for bare, with_us in pairs]
    )
    named = {"to the agent's start": before, "from the agent's end": after, "together": both}
    return _shown("launcher, stub agent", named)


def commands(runs: int, folder: Path) -> tuple[dict[str, Any], str]:
    """Small commands, over a ledger of a busy month."""
    environ = environment(folder)
    subprocess.run(
        [sys.executable, "-m", "bench.start", "--fill-ledger"],
        env={**environ, "PYTHONPATH": os.getcwd()},
        check=True,
    )
    timed: dict[str, Callable[[], float]] = {
        name: lambda command=command: _wall(command, environ, folder)  # type: ignore[misc]
        for name, command in {
            "python -c pass": [sys.executable, "-c", "pass"],
            "ogate --version": [*ogate(), "--version"],
            "ogate --help": [*ogate(), "--help"],
            "ogate usage --today": [*ogate(), "usage", "--today"],
            "ogate usage --month --by model": [*ogate(), "usage", "--month", "--by", "model"],
            "ogate providers list": [*ogate(), "providers", "list"],
            "completion of a provider": [*ogate(), "__complete", "provider", "an"],
        }.items()
    }
    for measure in timed.values():
        measure()
    walls: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(runs):
        for name, measure in timed.items():
            walls[name].append(measure())
    return _shown("command", {name: median_of(values) for name, values in walls.items()})


def real_agent(opencode: Path, rounds: int, folder: Path) -> tuple[dict[str, Any], str]:
    """What `ogate` adds to the real Opencode: to its drawn prompt, and to one answered one.

    `ogate` tells Opencode which providers there are, which spares it the work on all others it
    knows. So that this does not hide what is added, Opencode is also told the same alone.
    """
    environ = environment(folder)
    environ["PATH"] = f"{opencode.parent}{os.pathsep}{environ.get('PATH', '')}"
    environ |= {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
    named = environ | {"OPENCODE_CONFIG_CONTENT": json.dumps(_NAMED_PROVIDERS)}

    def draws(command: Sequence[str], variables: Mapping[str, str]) -> Callable[[], float]:
        return lambda: time_until_drawn(command, variables, folder, _PROMPT)

    def answers(command: Sequence[str], variables: Mapping[str, str]) -> Callable[[], float]:
        return lambda: _wall(command, variables, folder)

    with origin() as provider:
        model = {"name": "bench", "limit": {"context": 100_000, "output": 8000}}
        options = {"baseURL": f"http://127.0.0.1:{provider.port}/v1", "apiKey": "bench"}
        custom = {"npm": "@ai-sdk/openai-compatible", "name": "bench", "options": options}
        config = {"provider": {"bench": {**custom, "models": {"bench": model}}}}
        settings = folder / ".config" / "opencode" / "opencode.json"
        settings.parent.mkdir(parents=True)
        schema = {"$schema": "https://opencode.ai/config.json"}
        settings.write_text(json.dumps(schema | config), encoding="utf-8")
        shown: dict[str, Interval] = {}
        for what, ways, arguments in (
            ("prompt drawn", draws, ["-m", "bench/bench"]),
            ("prompt answered", answers, ["run", "-m", "bench/bench", "hello"]),
        ):
            bare = [str(opencode), *arguments]
            through = [*ogate(), "run", "--no-input", "--", *arguments]
            walls = _in_turns(
                {
                    "alone": ways(bare, environ),
                    "alone, providers named": ways(bare, named),
                    "through ogate": ways(through, environ),
                },
                rounds,
            )
            shown |= {f"{what}, {name}": median_of(taken) for name, taken in walls.items()}
            for name in ("alone", "alone, providers named"):
                pairs = list(zip(walls[name], walls["through ogate"], strict=True))
                shown[f"{what}, ogate over {name}"] = bootstrap(
                    pairs, lambda some: statistics.median(b - a for a, b in some)
                )
    return _shown(f"Opencode, {rounds} rounds", shown)


def _in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way takes, round after round; each begins a round as often as the others."""
    for measure in ways.values():
        measure()
    walls: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways)
    for _ in range(rounds):
        for name in order:
            walls[name].append(ways[name]())
        order.append(order.pop(0))
    return walls


def fill_ledger() -> None:
    """A month of work in the ledger of the home this runs in."""
    from opencode_gate.config.paths import paths, private_folder
    from opencode_gate.core.ids import new_ulid
    from opencode_gate.core.semconv import (
        CostQuality,
        ExchangeStatus,
        Operation,
        UsageQuality,
        WireFormat,
    )
    from opencode_gate.core.usage import TokenUsage
    from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
    from opencode_gate.ledger.sqlite import open_store

    now_us = time.time_ns() // 1000
    private_folder(paths().data)
    store = open_store(paths().ledger_file)
    session = SessionRecord(
        id=new_ulid(),
        user="bench",
        agent="opencode",
        agent_version="1.18.33",
        directory="/bench",
        project="bench",
        started_at_us=now_us,
        ended_at_us=now_us,
        exit_status=0,
    )
    store.add_session(session)
    store.fold(
        ExchangeRecord(
            id=new_ulid(),
            session_id=session.id,
            operation=Operation.GENERATE,
            wire_format=WireFormat.ANTHROPIC_MESSAGES,
            provider_name="anthropic",
            request_model=f"claude-{number % 4}",
            status=ExchangeStatus.COMPLETED,
            http_status=200,
            started_at_us=now_us - number * 30 * 86_400_000_000 // _LEDGER_EXCHANGES,
            duration_us=1_000_000,
            usage=TokenUsage(input_uncached=1000 + number, cache_read=30_000, output=500),
            usage_quality=UsageQuality.REPORTED,
            cost_nano_usd=12_345_678,
            cost_quality=CostQuality.PRICED,
        )
        for number in range(_LEDGER_EXCHANGES)
    )
    store.close()


def _wall(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        command,
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=120,
    )
    ended = time.perf_counter()
    if done.returncode != 0:
        raise SystemExit(f"{command} failed ({done.returncode}): {done.stderr.decode()}")
    return ended - started


def _shown(kind: str, named: Mapping[str, Interval]) -> tuple[dict[str, Any], str]:
    rows = [
        [name, millis(some.value), f"{millis(some.low)} to {millis(some.high)}"]
        for name, some in named.items()
    ]
    document = {name: [some.value, some.low, some.high] for name, some in named.items()}
    return document, table([kind, "median", "95 %"], rows)


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--opencode", type=Path, help="the real Opencode, for its added time")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, help="folder for performance-start.json and .md")
    parser.add_argument("--fill-ledger", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill_ledger:
        fill_ledger()
        return
    parts: dict[str, Callable[[Path], tuple[dict[str, Any], str]]] = {
        "launcher": lambda home: launcher(arguments.runs, home),
        "commands": lambda home: commands(arguments.runs, home),
    }
    if arguments.opencode is not None:
        program = arguments.opencode.absolute()
        parts["opencode"] = lambda home: real_agent(program, arguments.rounds, home)
    document: dict[str, Any] = {"unit": "seconds"}
    texts = []
    with tempfile.TemporaryDirectory(prefix="ogate-bench-") as folder:
        for name, measure in parts.items():
            home = Path(folder, name)
            home.mkdir()
            document[name], text = measure(home)
            texts.append(text)
            print(f"{text}\n", flush=True)
    told = _ABOUT.format(machine=_machine_text(), tables="\n\n".join(texts))
    keep("performance-start", document, told.rstrip(), arguments.out)


def _machine_text() -> str:
    found = machine()
    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, {found['cores']} cores of "
        f"{found['processor']}, {found['system']}, Python {found['python']}, "
        f"load {found['load']:.2f} at the end"
    )


if __name__ == "__main__":
    main()
