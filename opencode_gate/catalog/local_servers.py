"""Model servers on this machine, found on the ports they usually listen on.

The idea: a closed port on loopback refuses at once, so asking four of them costs a millisecond
when nothing is there; who answers with a list of models is a provider. The invariant: loopback
only, no key is sent, nothing is waited for beyond the deadline, and nothing here raises.

Ollama, LM Studio, llama-server and vLLM all answer `GET /v1/models` in OpenAI's shape; what
each adds to it (`max_model_len`, `meta.n_ctx`) is where a context size is known.
"""

import socket
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from opencode_gate.catalog.model_entries import model_row
from opencode_gate.catalog.rows import ModelRow, ProviderRow

LOOPBACK = "127.0.0.1"
_MOST_BYTES = 4 * 1024 * 1024


class UsualPort(msgspec.Struct, frozen=True, kw_only=True):
    """Where a kind of server listens unless told otherwise."""

    provider_id: str
    name: str
    port: int


USUAL_PORTS: tuple[UsualPort, ...] = (
    UsualPort(provider_id="ollama", name="Ollama", port=11434),
    UsualPort(provider_id="lmstudio", name="LM Studio", port=1234),
    UsualPort(provider_id="llama-server", name="llama-server", port=8080),
    UsualPort(provider_id="vllm", name="vLLM", port=8000),
)


class LocalServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answered, and what it has loaded or could load."""

    row: ProviderRow
    models: Mapping[str, ModelRow]


def find_local_servers(
    ports: Iterable[UsualPort] = USUAL_PORTS, *, timeout_s: float = 0.15
) -> tuple[LocalServer, ...]:
    """The servers that answer within `timeout_s`, all asked at the same time, in port order."""
    deadline_s = time.monotonic() + timeout_s
    found: dict[str, LocalServer] = {}
    open_ports = [usual for usual in ports if _is_open(usual.port, timeout_s)]
    threads = [
        threading.Thread(target=_ask, args=(usual, timeout_s, found), daemon=True)
        for usual in open_ports
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    answered = dict(found)
    return tuple(
        answered[usual.provider_id] for usual in open_ports if usual.provider_id in answered
    )


def _is_open(port: int, timeout_s: float) -> bool:
    """Whether something listens; loopback answers this at once, one way or the other."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout_s)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _ask(usual: UsualPort, timeout_s: float, found: dict[str, LocalServer]) -> None:
    import http.client
    import json

    connection = http.client.HTTPConnection(LOOPBACK, usual.port, timeout=timeout_s)
    try:
        connection.request("GET", "/v1/models", headers={"accept": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            return
        listed = json.loads(answer.read(_MOST_BYTES))
    except (OSError, http.client.HTTPException, ValueError):
        return
    finally:
        connection.close()
    entries = _entries(listed)
    if entries is not None:
        found[usual.provider_id] = _server(usual, entries)


def _entries(listed: object) -> list[Mapping[str, Any]] | None:
    """The list of models in OpenAI's shape, `None` if this is another kind of server."""
    if not isinstance(listed, Mapping) or listed.get("object") != "list":
        return None
    data = listed.get("data")
    if data is None:
        return []
    if not isinstance(data, list):
        return None
    return [
        entry for entry in data if isinstance(entry, Mapping) and isinstance(entry.get("id"), str)
    ]


def _server(usual: UsualPort, entries: list[Mapping[str, Any]]) -> LocalServer:
    row = ProviderRow(
        id=usual.provider_id,
        name=f"{usual.name} (this machine)",
        base_url=f"http://{LOOPBACK}:{usual.port}/v1",
        npm="@ai-sdk/openai-compatible",
        keyless=True,
        wire="openai-chat",
        source="local",
    )
    models = {
        entry["id"]: _model(usual.provider_id, entry)
        for entry in entries
        if "embed" not in entry["id"].lower()
    }
    return LocalServer(row=row, models=models)


def _model(provider_id: str, entry: Mapping[str, Any]) -> ModelRow:
    raw: dict[str, Any] = {
        "id": entry["id"],
        "name": entry["id"],
        "tool_call": True,
        "modalities": {"input": ["text"], "output": ["text"]},
    }
    context = _context_tokens(entry)
    if context is not None:
        raw["limit"] = {"context": context}
    return model_row(provider_id, entry["id"], raw)


def _context_tokens(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    said = entry.get("max_model_len")
    if said is None and isinstance(meta, Mapping):
        said = meta.get("n_ctx", meta.get("n_ctx_train"))
    return said if isinstance(said, int) and said > 0 else None
