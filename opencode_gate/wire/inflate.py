"""Compressed answers read along: RFC 1950, 1952 and 7932.

The gateway asks for `identity`, so this is for upstreams that compress all the same. The
invariant: what comes out is bounded, whatever the input claims.
"""

import zlib
from typing import Protocol

PLAIN_BYTES_MAX = 64 * 1024 * 1024
"""The most that is unpacked of one answer."""

_ZLIB_OR_GZIP = zlib.MAX_WBITS + 32
_GZIP = b"\x1f"
"""What a member begins with; the byte behind it may come later."""


class InflateError(Exception):
    """The bytes are not what they claim to be, or unpack to too much."""


class _Unpacker(Protocol):
    def push(self, chunk: bytes, at_most: int) -> bytes: ...


class Inflate:
    """Unpacks data as it comes. `encoding` is one of `KNOWN_ENCODINGS`.

    Raises:
        InflateError: this installation lacks what unpacks it.
    """

    __slots__ = ("_left", "_unpacker")

    def __init__(self, encoding: str) -> None:
        self._unpacker: _Unpacker = _Brotli() if encoding == "br" else _Zlib()
        self._left = PLAIN_BYTES_MAX

    def push(self, chunk: bytes) -> bytes:
        """What `chunk` brings.

        Raises:
            InflateError: broken or too much.
        """
        plain = self._unpacker.push(chunk, self._left)
        self._left -= len(plain)
        if self._left <= 0:
            raise InflateError("unpacks to too much")
        return plain


KNOWN_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate", "br"})


class _Zlib:
    """gzip and zlib data; of gzip, member after member (RFC 1952, section 2.2)."""

    def __init__(self) -> None:
        self._state = zlib.decompressobj(_ZLIB_OR_GZIP)

    def push(self, chunk: bytes, at_most: int) -> bytes:
        plain: list[bytes] = []
        try:
            while chunk and at_most > 0:
                if self._state.eof:
                    if not chunk.startswith(_GZIP):
                        break  # what stands behind the end is padding
                    self._state = zlib.decompressobj(_ZLIB_OR_GZIP)
                plain.append(self._state.decompress(chunk, at_most))
                at_most -= len(plain[-1])
                chunk = self._state.unused_data
        except zlib.error as error:
            raise InflateError(str(error)) from error
        return b"".join(plain)


class _Brotli:
    """Brotli data."""

    def __init__(self) -> None:
        try:
            import brotli  # type: ignore[import-untyped]
        except ImportError as error:
            raise InflateError(str(error)) from error

        self._state = brotli.Decompressor()
        self._error = brotli.error

    def push(self, chunk: bytes, at_most: int) -> bytes:
        try:
            plain: bytes = self._state.process(chunk, output_buffer_limit=at_most)
            while len(plain) < at_most and not self._state.can_accept_more_data():
                plain += self._state.process(b"", output_buffer_limit=at_most - len(plain))
        except self._error as error:
            raise InflateError(str(error)) from error
        return plain
