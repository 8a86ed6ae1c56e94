"""Where a key is while the real Opencode works, and where it has been afterwards: searched for
byte for byte.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.config.paths import paths
from tests.support.mock_providers import agent_turn, aimock
from tests.support.real_session import Person, command_line, process_ids_of, until
from tests.support.recording_relay import RecordingRelay

pytestmark = pytest.mark.e2e

IN_KEYRING = "sk-keyring-Zk4vX9qW2mT7bN1cR8dF5gH3"
IN_FILE = "sk-ant-file-Jp6yL0sE4uA9iO2wQ7xV5zB8"
IN_ENVIRONMENT = "gsk_environ_Mn3hK8tD1fG6jS9lP4rC7vY2"
KEYS = (IN_KEYRING, IN_FILE, IN_ENVIRONMENT)
ANSWER = "The note says that milk is to be bought."

_SESSION = f"""
printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null || exit 90
{sys.executable} -m opencode_gate.cli.main keys add openai --stdin >&2 || exit 91
exec {sys.executable} -m opencode_gate.cli.main run --no-input -- run -m openai/gpt-5 question
"""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingRelay]:
    counts = {"prompt_tokens": 17, "completion_tokens": 3}
    fixtures = agent_turn(title=counts, call=counts, answer=counts, text=ANSWER)
    with aimock(tmp_path_factory.mktemp("aimock"), fixtures) as relay:
        yield relay


@pytest.fixture
def person(tmp_path: Path, provider: RecordingRelay) -> Person:
    """Someone with one key in the keyring, one in the encrypted file, one in the environment."""
    person = Person(tmp_path)
    for name, path in (("openai", "/v1"), ("anthropic", "/v1"), ("groq", "/v1")):
        person.configure("providers", "edit", name, "--base-url", provider.url + path)
    stored = person.ogate("keys", "add", "anthropic", "--stdin", "--store", "file", stdin=IN_FILE)
    assert stored.returncode == 0, stored.stderr
    person.write(person.project / "opencode.json", {"small_model": "anthropic/claude-haiku-4-5"})
    return person


def files_with(root: Path, *needles: str) -> list[str]:
    """Every file below a folder that contains one of these, in its bytes or in its name."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):
                content = file.read_bytes() if file.is_file() else b""
                found += [str(file) for needle in needles if needle.encode() in content]
                found += [str(file) for needle in needles if needle in str(file)]
    return found


def variables_of(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(pair.partition("=")[::2] for pair in raw.split("\0") if pair)


def processes_with(person: Person, *words: str) -> list[int]:
    return [
        pid for pid in process_ids_of(person) if all(word in command_line(pid) for word in words)
    ]


def test_a_key_is_nowhere_but_in_its_store_and_in_the_request(
    person: Person, provider: RecordingRelay, tmp_path: Path
):
    """Not in an argument, an environment, a file, a log or an output, during and after a run."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    provider.flows.clear()
    process = subprocess.Popen(
        ["dbus-run-session", "--", "bash", "-c", _SESSION],
        cwd=person.project,
        env=person.shell_environ(
            XDG_RUNTIME_DIR=str(tmp_path / "runtime"), GROQ_API_KEY=IN_ENVIRONMENT
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(IN_KEYRING)
        process.stdin.close()
        process.stdin = None
        until(lambda: len(provider.seen) >= 2 or process.poll() is not None, "a title and a prompt")
        assert process.poll() is None, process.communicate()

        (opencode,) = processes_with(person, "/opencode", " run -m openai/gpt-5 question")
        # The gateway and, once there is something to fold, the process that does it.
        servers = processes_with(person, "opencode_gate.server")
        assert servers
        token = variables_of(opencode)["OGATE_KEY"]
        assert len(token) > 32
        for pid in process_ids_of(person):
            assert not [key for key in (*KEYS, token) if key in command_line(pid)]
        for pid in (opencode, *servers):
            assert not [key for key in KEYS if key in json.dumps(variables_of(pid))]
        for pid in servers:
            assert token not in json.dumps(variables_of(pid))
        assert list(paths().runtime.iterdir()), "the run's own files are searched too"
        assert files_with(tmp_path, *KEYS, token) == []
        assert files_with(tmp_path, "claude-haiku-4-5"), "the search finds what is there"

        provider.flows.set()
        out, err = process.communicate(timeout=60)
    finally:
        provider.flows.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    assert process.returncode == 0, err
    assert ANSWER in out
    assert "ogate · session" in err
    sent = {relayed.path: relayed.headers for relayed in provider.seen}
    assert sent["/v1/responses"]["authorization"] == f"Bearer {IN_KEYRING}"
    assert sent["/v1/messages"]["x-api-key"] == IN_FILE
    assert files_with(tmp_path, *KEYS, token) == []
    assert not [key for key in (*KEYS, token) if key in out + err]


def test_a_key_that_is_refused_is_in_no_error_either(
    person: Person, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    """A provider that says no, and `--debug`, which shows where an error comes from."""
    refusal = {
        "match": {},
        "response": {
            "error": {"message": "Incorrect API key provided.", "type": "invalid_request_error"},
            "status": 401,
        },
    }
    with aimock(tmp_path_factory.mktemp("refusing"), [refusal]) as refusing:
        person.configure("providers", "edit", "groq", "--base-url", f"{refusing.url}/v1")
        done = person.ogate(
            *("--debug", "run", "--no-input", "--", "run", "--title", "t"),
            *("-m", "groq/llama-3.3-70b-versatile", "question"),
            GROQ_API_KEY=IN_ENVIRONMENT,
        )
        assert done.returncode == 1
        assert "Incorrect API key provided." in done.stderr
        assert len(refusing.seen) == 1, "a refusal is not retried"
        assert refusing.seen[0].headers["authorization"] == f"Bearer {IN_ENVIRONMENT}"
    assert not [key for key in KEYS if key in done.stdout + done.stderr]
    assert files_with(tmp_path, *KEYS) == []
