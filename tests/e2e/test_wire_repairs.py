"""A mended stream must be an end for the real Opencode: unmended, each of these is a request
that it sends again for ever.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.real_opencode import opencode_program
from tests.support.wire_corpus import Case, cases

pytestmark = pytest.mark.e2e

_PATH = os.environ.get("PATH", os.defpath)
_PACKAGES = {
    "openai-chat": "@ai-sdk/openai-compatible",
    "openai-responses": "@ai-sdk/openai",
    "anthropic": "@ai-sdk/anthropic",
    "gemini": "@ai-sdk/google",
}
MENDED = {case.name: case for case in cases("sse") if case.is_repaired}


class Served(ThreadingHTTPServer):
    """A provider that always gives the same answer, through the meter."""

    daemon_threads = True

    def __init__(self, case: Case) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.case = case
        self.requests = 0


class _Handler(BaseHTTPRequestHandler):
    server: Served

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.requests += 1
        meter = self.server.case.meter()
        body = meter.relay(self.server.case.upstream)
        end = meter.end()
        assert end.is_complete
        body += end.tail
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(case: Case) -> Iterator[Served]:
    with Served(case) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("openai-chat/finish_missing", "stop"),
        ("openai-chat/finish_tool_calls_without_call", "stop"),
        ("openai-chat/finish_unknown_length", "length"),
        ("anthropic/message_delta_missing", "stop"),
        ("anthropic/tool_use_without_tool", "stop"),
        ("openai-responses/incomplete_unknown_reason", "length"),
        ("openai-responses/no_usage_done_marker", "stop"),
        ("gemini/finish_other", "stop"),
        ("gemini/prompt_blocked", "content-filter"),
    ],
)
def test_a_mended_answer_ends_the_turn_after_one_request(name: str, finish: str, tmp_path: Path):
    case = MENDED[name]
    package = _PACKAGES[name.partition("/")[0]]
    home, project = tmp_path / "user", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    with served(case) as server:
        provider = {
            "npm": package,
            "options": {"baseURL": f"http://127.0.0.1:{server.server_port}/v1", "apiKey": "k"},
            "models": {"m": {"limit": {"context": 100_000, "output": 8_000}}},
        }
        config = {"provider": {"x": provider}, "enabled_providers": ["x"], "autoupdate": False}
        done = subprocess.run(
            [opencode_program(), "run", "--title", "T", "-m", "x/m", "--format", "json", "hi"],
            cwd=project,
            env={
                "PATH": _PATH,
                "HOME": str(home),
                "TMPDIR": str(tmp_path),
                "OPENCODE_CONFIG_CONTENT": json.dumps(config),
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
                "OPENCODE_DISABLE_MODELS_FETCH": "1",
                "NPM_CONFIG_OFFLINE": "true",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert server.requests == 1, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [step["part"]["reason"] for step in steps if step["type"] == "step_finish"] == [finish]
