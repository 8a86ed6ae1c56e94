"""The edges there are."""

from collections.abc import Callable

from tests.fuzz.http_server_edge import HttpServerEdge
from tests.fuzz.runner import Edge

EDGES: dict[str, Callable[[], Edge]] = {"http-server": HttpServerEdge}
