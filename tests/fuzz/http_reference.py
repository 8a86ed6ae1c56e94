"""HTTP/1.1 messages read as RFC 9112 says and not a byte otherwise, slowly.

A witness for what the gateway understood: it shares no code with it or with its parser.
"""

import re
from dataclasses import dataclass

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%s) +([!-~]+) +HTTP/(\d)\.(\d)\r\n" % _TOKEN)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?\r\n")  # the reason is nobody's
_FIELD = re.compile(rb"(%s):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r\n" % _TOKEN)
_CHUNK = re.compile(rb"([0-9a-fA-F]+)(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n")


class Incomplete(Exception):
    """More would have to come."""


class Malformed(Exception):
    """No HTTP message begins here."""


@dataclass
class Message:
    """What stands at the beginning of some bytes, and where it ends."""

    start: re.Match[bytes]
    headers: list[tuple[bytes, bytes]]
    body: bytes
    end: int

    def all(self, name: bytes) -> list[bytes]:
        return [value for field, value in self.headers if field == name]


def read_request(data: bytes, at: int) -> Message:
    """The request that begins at `at`, or behind empty lines there.

    Raises:
        Incomplete: it has no end.
        Malformed: it is none, or could be understood in two ways.
    """
    message = read_head(data, at)
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if codings:
        if lengths or len(codings) != 1 or codings[0].lower() != b"chunked":
            raise Malformed
        return _chunks(data, message)
    if lengths:
        if len(lengths) != 1 or not lengths[0].isdigit():
            raise Malformed
        return _sized(data, message, int(lengths[0]))
    return message


def read_head(data: bytes, at: int) -> Message:
    """The same without the body.

    Raises:
        Malformed: it is none.
    """
    start = _REQUEST_LINE.match(data, _past_empty_lines(data, at))
    if start is None:
        raise Malformed
    return _fields(data, start)


def read_response(data: bytes, at: int = 0) -> Message:
    """The final answer to a GET that begins at `at`, behind interim ones.

    A body that ends with the connection ends with `data`.

    Raises:
        Incomplete: it has no end.
        Malformed: it is none, or could be understood in two ways.
    """
    while True:
        start = _STATUS_LINE.match(data, _past_empty_lines(data, at))
        if start is None:
            raise Malformed
        message = _fields(data, start)
        status = int(start[2])
        if status >= 200 or status == 101:
            break
        at = message.end
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if status in (101, 204, 304):
        return message
    if codings:
        if lengths:
            raise Malformed
        if codings[-1].lower().rpartition(b",")[2].strip() == b"chunked":
            return _chunks(data, message)
        return _sized(data, message, len(data) - message.end)
    if lengths:
        if len(lengths) != 1 or not lengths[0].isdigit():
            raise Malformed
        return _sized(data, message, int(lengths[0]))
    return _sized(data, message, len(data) - message.end)


def _past_empty_lines(data: bytes, at: int) -> int:
    while data[at : at + 1] in (b"\r", b"\n"):
        at += 1
    return at


def _fields(data: bytes, start: re.Match[bytes]) -> Message:
    at, headers = start.end(), []
    while not data.startswith(b"\r\n", at):
        field = _FIELD.match(data, at)
        if field is None:
            raise Malformed
        headers.append((field[1].lower(), field[2]))
        at = field.end()
    return Message(start, headers, b"", at + 2)


def _sized(data: bytes, message: Message, size: int) -> Message:
    body = data[message.end : message.end + size]
    if len(body) < size:
        raise Incomplete
    message.body = body
    message.end += size
    return message


def _chunks(data: bytes, message: Message) -> Message:
    at, body = message.end, b""
    while True:
        chunk = _CHUNK.match(data, at)
        if chunk is None:
            raise Malformed
        size, at = int(chunk[1], 16), chunk.end()
        if size == 0:
            break
        if data[at + size : at + size + 2] != b"\r\n":
            raise Malformed
        body += data[at : at + size]
        at += size + 2
    trailer = _fields(data, chunk)
    message.body, message.end = body, trailer.end
    return message
