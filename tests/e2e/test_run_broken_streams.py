"""Streams that end in the wrong way, through the whole gateway, and the real Opencode behind it.

Given such a stream as it is, Opencode sends the same request again several times a second,
without end (https://github.com/anomalyco/opencode/issues/49414).
"""

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from opencode_gate.config.settings import RunawaySettings
from opencode_gate.core.semconv import ExchangeStatus
from tests.support.defective_provider import DefectiveProvider, defective_provider
from tests.support.fake_chat import ANSWER
from tests.support.launcher import ledger
from tests.support.real_session import Person

SAME_QUESTIONS = RunawaySettings().same_questions

pytestmark = pytest.mark.e2e

BASES = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/v1",
    "gemini": "/v1beta",
}
BROKEN_ONCE = [
    *((wire, "no-end") for wire in BASES),
    ("openai-chat", "cut"),
    ("gemini", "error-inside"),
]


@pytest.fixture
def provider() -> Iterator[DefectiveProvider]:
    with defective_provider() as running:
        yield running


@pytest.fixture
def person(tmp_path: Path, provider: DefectiveProvider) -> Person:
    person = Person(tmp_path)
    for wire, base in BASES.items():
        models = ["no-end", "cut", "error-inside", "always-packed", "always-plain"]
        named = [f"{wire}-{model}" for model in models]
        person.add_server(f"own-{wire}", wire, provider.url + base, *named)
    return person


class Served:
    """Opencode's own HTTP interface, in one `ogate run -- serve`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if "listening on" in line:
                self._url = line.split()[-1]
                break
        else:
            raise AssertionError(process.communicate())

    def ask(self, provider_id: str, model_id: str) -> dict[str, Any]:
        """One prompt in a conversation of its own, which needs no title."""
        conversation = self._post("/session", {"title": "t"})
        return self._post(
            f"/session/{conversation['id']}/message",
            {
                "model": {"providerID": provider_id, "modelID": model_id},
                "parts": [{"type": "text", "text": "hi"}],
            },
        )

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._url + path,
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            document: dict[str, Any] = json.loads(answer.read())
            return document


def text_of(message: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in message["parts"] if part["type"] == "text")


def test_no_broken_stream_makes_opencode_ask_for_ever(person: Person, provider: DefectiveProvider):
    """An end that is none becomes a cut, which is tried again once; what cannot be tried again
    becomes an error; what nobody can read is stopped by counting.
    """
    with person.started("run", "--no-input", "--", "serve", "--port", "0") as launcher:
        served = Served(launcher)
        for wire, defect in BROKEN_ONCE:
            model = f"{wire}-{defect}"
            message = served.ask(f"own-{wire}", model)
            assert message["info"].get("error") is None, (model, message)
            assert text_of(message) == ANSWER, model
            assert provider.asked[model] == 2, model

        message = served.ask("own-openai-chat", "openai-chat-always-plain")
        assert provider.asked["openai-chat-always-plain"] == 1
        assert "did not stream" in json.dumps(message["info"]["error"])

        message = served.ask("own-openai-chat", "openai-chat-always-packed")
        assert provider.asked["openai-chat-always-packed"] == 2 * SAME_QUESTIONS
        assert "ogate stopped this conversation" in json.dumps(message["info"]["error"])

        launcher.send_signal(signal.SIGTERM)
        _, error = launcher.communicate(timeout=60)
    assert "ogate · session" in error
    rows = [row for row in ledger().exchanges if row.request_model is not None]
    once = {f"{wire}-{defect}" for wire, defect in BROKEN_ONCE}
    for model in once:
        assert [row.status for row in rows if row.request_model == model] == [
            ExchangeStatus.UPSTREAM_ERROR,
            ExchangeStatus.COMPLETED,
        ], model
    statuses = [row.status for row in rows if row.request_model == "openai-chat-always-packed"]
    assert statuses[-1] is ExchangeStatus.DENIED
    assert statuses.count(ExchangeStatus.DENIED) == 1
