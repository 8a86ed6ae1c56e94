"""A provider on loopback that answers what a test tells it to, and remembers what it was asked."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from opencode_gate.catalog.rows import ProviderRow

Answer = tuple[int, object]


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: object


@dataclass
class ProviderStub:
    """`answer` is called with every request; `asked` lists them in order."""

    answer: Callable[[Asked], Answer]
    port: int = 0
    asked: list[Asked] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def row(self, **facts) -> ProviderRow:
        return ProviderRow(**{"id": "stub", "name": "Stub", "base_url": self.base_url, **facts})


@contextlib.contextmanager
def provider_stub(answer: Callable[[Asked], Answer]) -> Iterator[ProviderStub]:
    """Serves until the block ends."""
    stub = ProviderStub(answer=answer)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._serve(None)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            self._serve(json.loads(body))

        def _serve(self, body):
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            stub.asked.append(asked)
            status, content = stub.answer(asked)
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "https://elsewhere.example/login?next=x")
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
