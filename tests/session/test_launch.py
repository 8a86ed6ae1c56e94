"""`ogate run` around an agent: transparency, endings, and what is left behind."""

import json
import os
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus, UsageQuality
from tests.support.child_processes import hang_ups_ignored
from tests.support.launcher import (
    command,
    environment,
    gateway_of,
    is_alive,
    ledger,
    run,
    started,
)
from tests.support.scripted_upstream_thread import ThreadedUpstream

PRACTICE = ("run", "--provider", "practice", "--")


def _until(condition: object, seconds: float = 20) -> None:
    """Waits for something another process does."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_one_call_is_one_row_and_the_summary_goes_to_stderr(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "run", "ask")
    assert done.returncode == 0, done.stderr
    assert "[DONE]" in done.stdout
    assert "practice/scripted" not in done.stdout
    assert "ogate · session" in done.stderr
    left = ledger()
    (row,) = left.exchanges
    assert (row.status, row.provider_name) == (ExchangeStatus.COMPLETED, "practice")
    assert (left.session.project, left.session.exit_status) == ("project", 0)
    assert left.session.ended_at_us is not None


def test_a_folder_whose_name_is_no_unicode_stops_nothing(tmp_path: Path) -> None:
    """Older systems have such folders; what can be shown of it stands in the ledger."""
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    done = run(folder, *PRACTICE, "run", "ask")
    assert done.returncode == 0, done.stderr
    assert ledger().session.directory == str(tmp_path / "caf\ufffd" / "project")


@pytest.mark.parametrize("status", [0, 1, 7, 42])
def test_the_exit_status_is_the_agents_own(tmp_path: Path, status: int) -> None:
    assert run(tmp_path, *PRACTICE, "run", "exit", str(status)).returncode == status


def test_standard_streams_are_the_agents_own(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "run", "echo", stdin="pass this on\n")
    assert (done.returncode, done.stdout) == (5, "PASS THIS ON\n")
    assert "to stderr" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_one_that_nobody_reads_or_writes(tmp_path: Path, closed: str) -> None:
    """As a service manager or `cron` may start it: nothing is said there, and all else works."""
    line = shlex.join(command(*PRACTICE, "run", "ask"))
    done = _run_in_shell(tmp_path, f"exec {line} {closed}")
    assert (done.returncode, "bug" in done.stderr) == (0, False)
    assert len(ledger().exchanges) == 1


def test_what_an_interpreter_says_at_its_start_is_no_message(tmp_path: Path) -> None:
    """A `sitecustomize` that prints, as tools that measure programs put one there."""
    (tmp_path / "sitecustomize.py").write_text("print('measured')\n", encoding="utf-8")
    path = os.pathsep.join((str(tmp_path), environment(tmp_path)["PYTHONPATH"]))
    done = run(tmp_path, *PRACTICE, "run", "ask", PYTHONPATH=path)
    assert done.returncode == 0
    assert "practice/scripted" in done.stderr
    assert "Traceback" not in done.stderr
    assert "not everything" not in done.stderr


def test_the_status_is_opencodes_though_nobody_reads_the_account(tmp_path: Path) -> None:
    """`ogate run ... 2>&1 | head -1`, or a terminal that is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    line = command(*PRACTICE, "run", "ask")
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(
            line,
            cwd=tmp_path,
            env=environment(tmp_path, PWD=str(tmp_path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=nobody,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0


def _run_in_shell(tmp_path: Path, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line],
        env=environment(tmp_path, PWD=str(tmp_path)),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_session_without_a_model_call_has_no_bill(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "run", "exit", "0")
    assert "no model call went through the gateway" in done.stderr
    assert "$" not in done.stderr


def test_what_is_behind_the_dashes_arrives_as_it_is(tmp_path: Path) -> None:
    words = ["run", "dump", "practice", "--", "-x", "--model", "ä b", "--help"]
    done = run(tmp_path, *PRACTICE, *words)
    assert json.loads(done.stdout)["argv"][1:] == words


def test_the_agents_environment_has_what_it_needs_and_no_key(tmp_path: Path) -> None:
    key = "sk-ant-REAL-0123456789abcdef0123456789"
    done = run(
        tmp_path,
        *PRACTICE,
        "run",
        "dump",
        ANTHROPIC_API_KEY=key,
        GITHUB_TOKEN="ghp_stays",
        HTTP_PROXY="http://proxy.example:3128",
    )
    environ = json.loads(done.stdout)["environ"]
    assert "ANTHROPIC_API_KEY" not in environ
    assert key not in done.stdout
    assert environ["GITHUB_TOKEN"] == "ghp_stays"
    assert {"127.0.0.1", "localhost", "::1"} <= set(environ["NO_PROXY"].split(","))
    config = json.loads(environ["OPENCODE_CONFIG_CONTENT"])
    assert {"anthropic", "practice"} <= set(config["enabled_providers"])
    assert environ["OGATE_KEY"] not in environ["OPENCODE_CONFIG_CONTENT"]
    assert "ANTHROPIC_API_KEY was not shown to Opencode" in done.stderr


def test_keep_env_leaves_the_keys_where_they_are(tmp_path: Path) -> None:
    done = run(
        tmp_path, *PRACTICE, "run", "dump", ANTHROPIC_API_KEY="sk-ant-x", OGATE_RUN_KEEP_ENV="true"
    )
    assert json.loads(done.stdout)["environ"]["ANTHROPIC_API_KEY"] == "sk-ant-x"


def test_the_run_folder_is_gone_afterwards(tmp_path: Path) -> None:
    run(tmp_path, *PRACTICE, "run", "ask")
    assert list(paths().runtime.iterdir()) == []
    assert list(paths().journals.glob("*.jsonl")) == []


def test_files_of_a_session_are_its_persons_alone_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        with started(tmp_path, *PRACTICE, "run", "wait") as launcher:
            assert launcher.stdout is not None
            launcher.stdout.readline()
            modes = {
                file.name: stat.S_IMODE(file.stat().st_mode)
                for file in paths().runtime.rglob("*")
                if file.is_file()
            }
    finally:
        os.umask(former)
    assert modes == {"gateway.log": 0o600, "opencode.json": 0o600}


def test_the_summary_as_json_has_the_promised_form(tmp_path: Path) -> None:
    target = tmp_path / "account.json"
    options = ("--summary", "json", "--summary-file", str(target))
    done = run(tmp_path, "run", "--provider", "practice", *options, "--", "run", "ask")
    document = json.loads(target.read_text())
    assert json.loads(done.stderr[done.stderr.index("{") :]) == document
    assert document["version"] == 1
    assert set(document) == {
        "version", "session", "totals", "models", "conversations", "trouble", "timing", "budgets",
        "rules",
    }  # fmt: skip
    assert set(document["session"]) == {
        "id", "user", "agent", "agent_version", "project", "repository", "branch", "commit",
        "started_at", "ended_at", "exit_status",
    }  # fmt: skip
    totals = {
        "requests", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
        "output_tokens", "reasoning_output_tokens", "cost_usd", "cost_quality",
        "unknown_cost_requests",
    }  # fmt: skip
    assert set(document["totals"]) == totals
    (model,) = document["models"]
    assert set(model) == totals | {"provider_name", "request_model", "response_model"}
    (conversation,) = document["conversations"]
    assert set(conversation) == totals | {"id", "parent_id", "title", "kind"}
    assert set(document["trouble"]) == {
        "retries", "failovers", "interrupted", "errors", "contradicted",
    }  # fmt: skip
    assert set(document["timing"]) == {
        "time_to_first_chunk_s_p50", "time_to_first_chunk_s_p95", "output_tokens_per_s",
        "gateway_us_p50",
    }  # fmt: skip
    assert (document["totals"]["requests"], document["totals"]["cost_usd"]) == (1, "0")


def test_commands_that_call_no_model_run_untouched(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "--", "models", "--refresh")
    assert done.stdout == "untouched models --refresh\n"
    assert done.stderr == ""
    assert not paths().ledger_file.exists()


def test_the_screen_without_a_terminal_is_a_clear_error(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "--provider", "practice")
    assert done.returncode == 2
    assert "[no-terminal]" in done.stderr
    assert "hint:" in done.stderr


def test_a_positional_before_the_dashes_is_refused_with_the_right_form(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "fix the test")
    assert done.returncode == 2
    assert "--" in done.stderr


def test_opencode_missing_is_127_and_says_how_to_get_it(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "run", "ask", OGATE_RUN_AGENT_PATH="/nowhere/opencode")
    assert done.returncode == 127
    assert "[agent-missing]" in done.stderr


def test_opencode_that_cannot_be_executed_is_126(tmp_path: Path) -> None:
    plain = tmp_path / "opencode"
    plain.write_text("not a program", encoding="utf-8")
    done = run(tmp_path, *PRACTICE, "run", "ask", OGATE_RUN_AGENT_PATH=str(plain))
    assert done.returncode == 126
    assert "[agent-unusable]" in done.stderr


@pytest.mark.parametrize("words", [("run", "ask"), ("models",)])
def test_opencode_for_another_machine_is_126(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Also where nothing of ours would be around it."""
    foreign = tmp_path / "1" / "opencode" / "1.18.33" / "opencode"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"\x7fELF of another machine")
    foreign.chmod(0o755)
    done = run(tmp_path, *PRACTICE, *words, OGATE_RUN_AGENT_PATH=str(foreign))
    assert done.returncode == 126
    assert "[agent-unusable]" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "shown"),
    [
        (("--provider", "antropic"), "unknown-provider", "anthropic"),
        (
            ("--provider", "databricks"),
            "unsupported-provider",
            "ogate providers edit databricks --variable DATABRICKS_HOST=…",
        ),
        (("--model", "anthropic/claude-sonet-5"), "unknown-model", "claude-sonnet-5"),
        (("--model", "sonnet"), "unknown-model", "provider/model"),
        (("--model", "deepseek/deepseek-v4-flash"), "unknown-model", "deprecated"),
        (("--provider", "groq", "--model", "x"), "missing-credential", "ogate keys add groq"),
    ],
)
def test_wrong_names_are_answered_with_the_nearest_ones(
    tmp_path: Path, arguments: tuple[str, ...], code: str, shown: str
) -> None:
    keys = {"ANTHROPIC_API_KEY": "sk-ant-x", "DEEPSEEK_API_KEY": "sk-x"}
    done = run(tmp_path, "run", *arguments, "--", "run", "ask", **keys)
    assert done.returncode in (2, 125)
    assert f"[{code}]" in done.stderr
    assert shown in done.stderr


def test_a_model_behind_the_dashes_is_looked_at_first(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "--", "run", "ask", "-m", "groq/llama", ANTHROPIC_API_KEY="sk-x")
    assert done.returncode == 125
    assert "ogate keys add groq" in done.stderr


def test_nothing_to_use_and_nobody_to_ask_names_the_flag(tmp_path: Path) -> None:
    done = run(tmp_path, "run", "--", "run", "ask")
    assert done.returncode == 2
    assert "[no-terminal]" in done.stderr
    assert "--provider" in done.stderr


def test_a_server_of_ones_own_without_a_key_is_something_to_use(
    tmp_path: Path, endless: ThreadedUpstream
) -> None:
    done = run(tmp_path, "run", "--", "run", "dump", "acme")
    assert done.returncode == 0, done.stderr
    environ = json.loads(done.stdout)["environ"]
    assert json.loads(environ["OPENCODE_CONFIG_CONTENT"])["enabled_providers"][-1] == "acme"


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_are_passed_on_and_the_session_is_accounted_for(
    tmp_path: Path, sent: signal.Signals, status: int
) -> None:
    with started(tmp_path, *PRACTICE, "run", "wait") as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        launcher.send_signal(sent)
        assert launcher.wait(20) == status
    assert ledger().session.exit_status == status
    assert list(paths().runtime.iterdir()) == []


def test_a_hang_up_that_is_ignored_stays_ignored_also_in_the_agent(tmp_path: Path) -> None:
    """As `nohup` asks for: the session goes on when its terminal is closed."""
    with hang_ups_ignored(), started(tmp_path, *PRACTICE, "run", "wait") as launcher:
        assert launcher.stdout is not None
        agent = int(launcher.stdout.readline().split()[1])
        launcher.send_signal(signal.SIGHUP)
        os.kill(agent, signal.SIGHUP)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(20) == 143


def test_a_ledger_that_breaks_meanwhile_is_said_and_the_status_stays_the_agents(
    tmp_path: Path,
) -> None:
    with started(tmp_path, *PRACTICE, "run", "wait") as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        for file in paths().data.glob("ledger.db*"):
            file.unlink()
        paths().ledger_file.write_bytes(b"no database " * 1000)
        os.killpg(launcher.pid, signal.SIGINT)
        _, err = launcher.communicate(timeout=40)
    assert launcher.returncode == 33, err
    assert "[ledger-corrupt]" in err


def test_ctrl_c_is_the_agents_and_the_launcher_outlives_it(tmp_path: Path) -> None:
    with started(tmp_path, *PRACTICE, "run", "wait") as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        os.killpg(launcher.pid, signal.SIGINT)
        assert launcher.wait(20) == 33
    assert ledger().session.exit_status == 33


ACME = ("run", "--provider", "acme", "--", "run")


def test_a_gateway_killed_in_mid_stream_is_replaced_and_nothing_is_lost(
    tmp_path: Path, endless: ThreadedUpstream
) -> None:
    with started(tmp_path, *ACME, "stream", "acme") as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline().startswith("pid ")
        assert launcher.stdout.readline() == "streaming\n"
        first = gateway_of(launcher.pid)
        os.kill(first, signal.SIGKILL)
        endless.release.set()
        _, err = launcher.communicate(timeout=40)
        assert launcher.returncode == 0, err
    rows = ledger().exchanges
    assert sorted(row.status for row in rows) == [
        ExchangeStatus.COMPLETED,
        ExchangeStatus.INTERRUPTED,
    ]
    interrupted = next(row for row in rows if row.status is ExchangeStatus.INTERRUPTED)
    assert interrupted.usage_quality in (UsageQuality.ESTIMATED, UsageQuality.UNKNOWN)
    assert not is_alive(first)


def test_a_launcher_killed_takes_agent_and_gateway_with_it_and_loses_nothing(
    tmp_path: Path, endless: ThreadedUpstream
) -> None:
    with started(tmp_path, *ACME, "stream", "acme") as launcher:
        assert launcher.stdout is not None
        agent = int(launcher.stdout.readline().split()[1])
        assert launcher.stdout.readline() == "streaming\n"
        gateway = gateway_of(launcher.pid)
        launcher.kill()
        launcher.wait(20)
        _until(lambda: not is_alive(agent) and not is_alive(gateway))
    left = ledger()
    (row,) = left.exchanges
    assert row.status in (ExchangeStatus.INTERRUPTED, ExchangeStatus.CLIENT_DISCONNECTED)
    assert left.session.ended_at_us is not None
    assert list(paths().runtime.iterdir()) == []
    assert list(paths().journals.glob("*.jsonl")) == []


def test_an_agent_killed_ends_the_session_with_137(tmp_path: Path) -> None:
    with started(tmp_path, *PRACTICE, "run", "wait") as launcher:
        assert launcher.stdout is not None
        agent = int(launcher.stdout.readline().split()[1])
        os.kill(agent, signal.SIGKILL)
        assert launcher.wait(20) == 137
    assert ledger().session.exit_status == 137


def test_a_gateway_that_keeps_dying_is_given_up_with_a_reason(
    tmp_path: Path, endless: ThreadedUpstream
) -> None:
    """What it was answering is in the account: of what is not known it does not say that it was
    nothing.
    """
    with started(tmp_path, *ACME, "stream", "acme") as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        assert launcher.stdout.readline() == "streaming\n"
        killed: set[int] = set()
        for _ in range(6):
            _until(lambda: _next_gateway(launcher.pid, killed) is not None)
            gateway = _next_gateway(launcher.pid, killed)
            assert gateway is not None
            killed.add(gateway)
            os.kill(gateway, signal.SIGKILL)
        _, err = launcher.communicate(timeout=40)
    assert "[gateway-failed]" in err
    assert "no model call" not in err
    assert launcher.returncode == 143
    assert {row.status for row in ledger().exchanges} == {ExchangeStatus.INTERRUPTED}
    assert list(paths().journals.glob("*.jsonl")) == []


def _next_gateway(launcher_pid: int, killed: set[int]) -> int | None:
    try:
        gateway = gateway_of(launcher_pid)
    except (AssertionError, FileNotFoundError):
        return None
    return None if gateway in killed else gateway


def test_two_sessions_at_once_keep_their_rows_apart(tmp_path: Path) -> None:
    with started(tmp_path, *PRACTICE, "run", "retry") as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        run(tmp_path, *PRACTICE, "run", "ask")
        mine = ledger()
        other.stdin.write("\n")
        other.stdin.flush()
        other.communicate(timeout=30)
    assert len(mine.exchanges) == 1
    assert environment(tmp_path)["OGATE_HOME"]


def test_a_corrupt_ledger_stops_before_anything_is_started(tmp_path: Path) -> None:
    file = paths().ledger_file
    file.parent.mkdir(parents=True)
    file.write_bytes(b"this is no database" * 100)
    done = run(tmp_path, *PRACTICE, "run", "ask")
    assert done.returncode == 125
    assert "[ledger-corrupt]" in done.stderr
    assert file.read_bytes() == b"this is no database" * 100


def test_a_broken_config_names_file_line_and_key(tmp_path: Path) -> None:
    file = paths().config_file
    file.parent.mkdir(parents=True)
    file.write_text('[run]\nsummary = "table"\nkeep_envv = true\n', encoding="utf-8")
    done = run(tmp_path, *PRACTICE, "run", "ask")
    assert done.returncode == 125
    assert "[bad-config]" in done.stderr
    assert "config.toml:3" in done.stderr or "line 3" in done.stderr
    assert "keep_env" in done.stderr


def test_a_read_only_home_is_a_clear_error(tmp_path: Path) -> None:
    done = run(tmp_path, *PRACTICE, "run", "ask", OGATE_HOME="/proc/ogate")
    assert done.returncode == 125
    assert "OGATE_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_session_is_recorded_where_opencode_works(tmp_path: Path) -> None:
    """It takes `--dir` from `PWD`, not from the launcher, and follows links."""
    (tmp_path / "project/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "project")
    done = run(tmp_path, *PRACTICE, "run", "dump", "--dir", "inner", PWD=str(tmp_path / "link"))
    assert json.loads(done.stdout)["cwd"] == str(tmp_path / "project"), "Opencode goes there itself"
    assert ledger().session.directory == str(tmp_path / "project/inner")


def test_an_account_that_cannot_be_made_leaves_the_status_opencodes(tmp_path: Path) -> None:
    """And is seen all the same."""
    target = tmp_path / "no-such-folder" / "account.json"
    options = ("--provider", "practice", "--summary-file", str(target))
    done = run(tmp_path, "run", *options, "--", "run", "exit", "7")
    assert done.returncode == 7
    assert "[folder-unwritable]" in done.stderr
    assert "ogate · session" in done.stderr
