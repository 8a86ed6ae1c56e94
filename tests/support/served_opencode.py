"""Opencode's own HTTP interface in one `ogate run -- serve`: several turns of one conversation."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.real_session import Person


@dataclass(slots=True)
class ServedOpencode:
    """A running one; after the block `summary` is what ogate said at its end."""

    url: str
    summary: str = ""

    def conversation(self) -> str:
        """A new conversation, which needs no title."""
        return str(self._post("/session", {"title": "t"})["id"])

    def ask(self, conversation: str, text: str, *, model: str, **more: Any) -> dict[str, Any]:
        """One turn; `more` goes into the message: `agent`, `tools`."""
        provider_id, _, model_id = model.partition("/")
        answer = self._post(
            f"/session/{conversation}/message",
            {
                "model": {"providerID": provider_id, "modelID": model_id},
                "parts": [{"type": "text", "text": text}],
                **more,
            },
        )
        assert answer["info"].get("error") is None, answer
        return answer

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            document: dict[str, Any] = json.loads(answer.read())
            return document


@contextmanager
def served_opencode(person: Person) -> Iterator[ServedOpencode]:
    """Ends it as a person does who closes the terminal."""
    with person.started("run", "--no-input", "--", "serve", "--port", "0") as launcher:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            if "listening on" in line:
                served = ServedOpencode(line.split()[-1])
                break
        else:
            raise AssertionError(launcher.communicate())
        yield served
        launcher.send_signal(signal.SIGTERM)
        _, served.summary = launcher.communicate(timeout=60)
