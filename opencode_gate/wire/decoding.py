"""JSON decoding that accepts what JavaScript clients accept.

Lone surrogates (a text cut inside an emoji) and bytes that are not UTF-8 do not stop a client,
so they must not stop us; the fast decoder refuses them. Then, and only then, a copy in which
they are replaced is decoded. The copy is for reading alone and never sent.
"""

import re
from collections.abc import Callable
from types import UnionType
from typing import Any, Generic, TypeVar

import msgspec

_T = TypeVar("_T")

NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the fast decoder raises for what it does not take."""

_SURROGATES = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


class Lenient(Generic[_T]):
    """Decodes bytes to `schema`; members the schema does not name are skipped."""

    __slots__ = ("_decode",)

    def __init__(
        self, schema: type[_T] | UnionType, *, float_hook: Callable[[str], Any] | None = None
    ) -> None:
        self._decode: Callable[[bytes | memoryview | msgspec.Raw], _T] = msgspec.json.Decoder(
            schema, float_hook=float_hook
        ).decode

    def decode(self, data: bytes | memoryview | msgspec.Raw) -> _T:
        """The decoded value.

        Raises:
            msgspec.DecodeError: `data` is not JSON, or not of this shape.
        """
        try:
            return self._decode(data)
        except msgspec.ValidationError:
            raise
        except RecursionError as error:
            raise msgspec.DecodeError("nested too deeply") from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._decode_mended(data)

    def _decode_mended(self, data: bytes | memoryview | msgspec.Raw) -> _T:
        readable = bytes(data).decode("utf-8", "replace").encode()
        readable = _SURROGATES.sub(lambda match: match[1] or rb"\ufffd", readable)
        try:
            return self._decode(readable)
        except RecursionError as error:
            raise msgspec.DecodeError("nested too deeply") from error
