"""What the head of a request must not say.

The parser refuses what is no HTTP/1.1 (two lengths, a length beside chunks, folded or bare-ended
lines); this is what it lets pass and what others on the way might understand in another way.
"""

from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from opencode_gate.gateway.downstream import ClientHeaders

_OLD_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"))


class NotServed(Exception):
    """Ends the parser's work on a request; the parser wraps it in its own error."""


def check_old(version: str, method: bytes) -> None:
    """HTTP/1.0 is served; what else calls itself a version is not (RTSP has a 1.0 too).

    Raises:
        NotServed: it is none of ours.
    """
    if version != "1.0" or method not in _OLD_METHODS:
        raise NotServed


def check_hosts(headers: ClientHeaders, *, is_old: bool) -> None:
    """One host, no more and no less (RFC 9112, section 3.2).

    Raises:
        NotServed: there are others.
    """
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and not is_old):
        raise NotServed


def check_coding(headers: ClientHeaders, *, is_old: bool) -> None:
    """A body in chunks may be in nothing else, whose end others might see elsewhere.

    The parser believes the last of several fields.

    Raises:
        NotServed: it is.
    """
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if is_old or codings != [b"chunked"]:
        raise NotServed


@lru_cache(maxsize=64)
def split_target(url: bytes) -> tuple[str, bytes, bytes]:
    """The path, as it is meant and as it came, and the query; an agent uses very few.

    Raises:
        NotServed: it is meant for a proxy, or nothing that a client may ask for.
    """
    raw_path, _, query = url.partition(b"?")
    if not url.startswith(b"/") or b"#" in url:
        raise NotServed
    return unquote_to_bytes(raw_path).decode("utf-8", "replace"), raw_path, query
