"""Compressed answers read along: RFC 1950, 1952.

The gateway asks for `identity`, so this is for upstreams that compress all the same. The
invariant: what comes out is bounded, whatever the input claims.
"""

import zlib

PLAIN_BYTES_MAX = 64 * 1024 * 1024
"""The most that is unpacked of one answer."""

_ZLIB_OR_GZIP = zlib.MAX_WBITS + 32


class InflateError(Exception):
    """The bytes are not what they claim to be, or unpack to too much."""


class Inflate:
    """Unpacks gzip or zlib data as it comes."""

    __slots__ = ("_left", "_state")

    def __init__(self) -> None:
        self._state = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._left = PLAIN_BYTES_MAX

    def push(self, chunk: bytes) -> bytes:
        """What `chunk` brings.

        Raises:
            InflateError: broken or too much.
        """
        try:
            plain = self._state.decompress(chunk, self._left)
        except zlib.error as error:
            raise InflateError(str(error)) from error
        self._left -= len(plain)
        if self._left <= 0:
            raise InflateError("unpacks to too much")
        return plain
