"""Model servers on this machine: who answers in the right shape is a provider, nothing else is."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opencode_gate.catalog.local_servers import USUAL_PORTS, UsualPort, find_local_servers


@contextmanager
def serving(answer: bytes, status: int = 200) -> Iterator[tuple[UsualPort, list[dict[str, str]]]]:
    """A server that answers every GET alike, and the headers it was sent."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({":path": self.path, **self.headers})
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield UsualPort(provider_id="ollama", name="Ollama", port=server.server_port), seen
    finally:
        server.shutdown()
        server.server_close()


def listing(*entries: dict[str, object]) -> bytes:
    return json.dumps({"object": "list", "data": list(entries)}).encode()


def find(port: UsualPort):
    return find_local_servers([port], timeout_s=5)


def test_a_server_and_its_models_are_found() -> None:
    entries = (
        {"id": "qwen3-coder:30b", "object": "model", "owned_by": "library"},
        {"id": "big", "max_model_len": 32768},
        {"id": "small", "meta": {"n_ctx": 4096, "n_ctx_train": 8192}},
        {"id": "trained", "meta": {"n_ctx_train": 8192}},
        {"id": "nomic-embed-text"},
    )
    with serving(listing(*entries)) as (port, seen):
        (server,) = find(port)
    assert server.row.id == "ollama"
    assert server.row.base_url == f"http://127.0.0.1:{port.port}/v1"
    assert (server.row.source, server.row.keyless) == ("local", True)
    contexts = {model.id: model.context_tokens for model in server.models.values()}
    assert contexts == {"qwen3-coder:30b": None, "big": 32768, "small": 4096, "trained": 8192}
    assert {model.output_tokens for model in server.models.values()} == {None}
    assert all(model.price is None for model in server.models.values())
    assert seen[0][":path"] == "/v1/models"
    assert not {"Authorization", "authorization", "x-api-key"} & set(seen[0])


def test_a_server_that_has_no_model_yet_is_there_all_the_same() -> None:
    for answer in (b'{"object": "list", "data": null}', listing()):
        with serving(answer) as (port, _):
            (server,) = find(port)
        assert server.models == {}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"<html>hello</html>", 200),
        (b'{"data": [{"id": "x"}]}', 200),
        (b'{"object": "list", "data": {"id": "x"}}', 200),
        (b"[]", 200),
        (listing({"id": "x"}), 401),
        (b"\xff\xfe", 200),
    ],
)
def test_another_kind_of_server_on_the_port_is_let_alone(answer, status) -> None:
    with serving(answer, status) as (port, _):
        assert find(port) == ()


def test_an_entry_without_a_name_costs_only_itself() -> None:
    with serving(listing({"id": 3}, {"name": "x"}, {"id": "m"})) as (port, _):
        (server,) = find(port)
    assert list(server.models) == ["m"]


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = UsualPort(provider_id="vllm", name="vLLM", port=silent.getsockname()[1])
        assert find_local_servers([port], timeout_s=0.01) == ()


def test_nobody_there_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = UsualPort(provider_id="vllm", name="vLLM", port=gone.getsockname()[1])
    assert find_local_servers([port]) == ()


def test_the_usual_ports_are_those_of_the_four_servers() -> None:
    assert {usual.provider_id: usual.port for usual in USUAL_PORTS} == {
        "ollama": 11434,
        "lmstudio": 1234,
        "llama-server": 8080,
        "vllm": 8000,
    }
