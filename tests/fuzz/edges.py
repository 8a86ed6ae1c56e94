"""The edges there are."""

from collections.abc import Callable

from tests.fuzz.http_client_edge import HttpClientEdge
from tests.fuzz.http_server_edge import HttpServerEdge
from tests.fuzz.runner import Edge
from tests.fuzz.wire_edges import AnswerEdge, RequestEdge, stream_edges

EDGES: dict[str, Callable[[], Edge]] = {
    "http-server": HttpServerEdge,
    "http-client": HttpClientEdge,
    **stream_edges(),
    "answer": AnswerEdge,
    "request": RequestEdge,
}
