"""Providers written by others: aimock (npm) and llmock (PyPI), each behind a recording relay.

`OGATE_TEST_AIMOCK` names aimock's `dist/cli.js`; it is read when this module is imported,
because every test starts with a bare environment.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from llmock.testing import LLMockServer

from tests.support.recording_relay import RecordingRelay, recording_relay

_AIMOCK = os.environ.get("OGATE_TEST_AIMOCK")
_NODE = shutil.which("node")
_START_S = 30.0

LLMOCK_BASES = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/anthropic/v1",
    "gemini": "/gemini/v1beta",
}
"""The path of a provider's base address at llmock, by wire format."""

AIMOCK_BASES = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/v1",
    "gemini": "/v1beta",
}
"""The same at aimock."""


@contextmanager
def aimock(folder: Path, fixtures: Sequence[dict[str, Any]]) -> Iterator[RecordingRelay]:
    """aimock with these fixtures (first match wins); a request without one is an error."""
    if not _AIMOCK or not Path(_AIMOCK).exists() or _NODE is None:
        pytest.fail(
            "these tests need aimock: set OGATE_TEST_AIMOCK to @copilotkit/aimock/dist/cli.js "
            "(npm install @copilotkit/aimock@1.43.0) and put node on PATH"
        )
    file = folder / "fixtures.json"
    file.write_text(json.dumps({"fixtures": list(fixtures)}), encoding="utf-8")
    port = _free_port()
    log = (folder / "aimock.log").open("wb")
    process = subprocess.Popen(
        [_NODE, _AIMOCK, "-p", str(port), "-h", "127.0.0.1", "-f", str(file), "--strict"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        _until_it_answers(f"http://127.0.0.1:{port}/__aimock/journal", process, log.name)
        with recording_relay(port) as relay:
            yield relay
    finally:
        process.kill()
        process.wait()
        log.close()


@contextmanager
def llmock() -> Iterator[RecordingRelay]:
    """llmock, which calls one of the offered tools and then answers."""
    with LLMockServer() as server, recording_relay(server.port) as relay:
        yield relay


def agent_turn(
    *, title: dict[str, int], call: dict[str, int], answer: dict[str, int], text: str
) -> list[dict[str, Any]]:
    """Fixtures of one turn of a coding agent: a title, a tool call, an answer, with their usage."""
    look = [{"name": "read", "arguments": {"filePath": "notes.txt"}}]
    return [
        {
            "match": {"toolName": "read", "hasToolResult": True},
            "response": {"content": text, "usage": answer},
        },
        {"match": {"toolName": "read"}, "response": {"toolCalls": look, "usage": call}},
        {"match": {}, "response": {"content": "A short title", "usage": title}},
    ]


def reported_usage(wire: str, answer: bytes) -> tuple[int, int]:
    """Input and output tokens as a streamed answer states them, read without the product's code."""
    events = [
        json.loads(line[6:])
        for line in answer.decode().splitlines()
        if line.startswith("data: ") and line != "data: [DONE]"
    ]
    match wire:
        case "openai-chat":
            usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
            return usage["prompt_tokens"], usage["completion_tokens"]
        case "openai-responses":
            (end,) = [event for event in events if event["type"] == "response.completed"]
            usage = end["response"]["usage"]
            return usage["input_tokens"], usage["output_tokens"]
        case "anthropic":
            (start,) = [event for event in events if event["type"] == "message_start"]
            (delta,) = [event for event in events if event["type"] == "message_delta"]
            return start["message"]["usage"]["input_tokens"], delta["usage"]["output_tokens"]
        case "gemini":
            usage = next(e["usageMetadata"] for e in reversed(events) if e.get("usageMetadata"))
            return usage["promptTokenCount"], usage["candidatesTokenCount"]
    raise AssertionError(wire)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _until_it_answers(url: str, process: subprocess.Popen[bytes], log: str) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, Path(log).read_text()
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)
