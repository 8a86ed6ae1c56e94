"""The members of a zip file that lies in memory.

The idea: the standard library's `zipfile` reads the whole directory, and loading it takes longer
than all that is read of the catalogue at the start of a session. The invariant: a member comes
out as it was put in, by its checksum, or not at all; what only other programs write (zip64,
encryption, other methods) is refused.

The format is PKWARE's APPNOTE 6.3.10, §4.3: local header (§4.3.7), directory (§4.3.12), its end
(§4.3.16).
"""

import threading
import zlib
from struct import Struct, error
from typing import NamedTuple

_END = Struct("<4s4H2LH")
_ENTRY = Struct("<4s6H3L5H2L")
_LOCAL = Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 1
_LONGEST_COMMENT = 65_535


class NotReadable(Exception):
    """The bytes are no zip file, or not one that is read here."""


class _Member(NamedTuple):
    method: int
    checksum: int
    packed_bytes: int
    bytes: int
    place: int


class Members:
    """The members by name, for any thread.

    The directory is read as far as it takes, and never past damage: who asks again hears of it
    again.
    """

    def __init__(self, archive: bytes) -> None:
        """Takes the bytes of the file.

        Raises:
            NotReadable: they do not end as a zip file does.
        """
        self._archive = archive
        end = archive.rfind(b"PK\5\6", max(0, len(archive) - _LONGEST_COMMENT - _END.size))
        if end < 0 or len(archive) < end + _END.size:
            raise NotReadable("not a zip file")
        *_, self._unread, _size, self._place, _comment = _END.unpack_from(archive, end)
        self._known: dict[str, _Member] = {}
        self._finding = threading.Lock()

    def read(self, name: str) -> bytes:
        """A member's content.

        Raises:
            KeyError: there is none of that name.
            NotReadable: it, or the directory, is damaged.
        """
        try:
            return self._content(self._find(name))
        except (error, zlib.error, UnicodeDecodeError) as problem:
            raise NotReadable(f"{name}: {problem}") from problem

    def _find(self, name: str) -> _Member:
        with self._finding:
            while name not in self._known and self._unread > 0:
                found, member, next_place = self._entry(self._place)
                self._known[found] = member
                self._place = next_place
                self._unread -= 1
            return self._known[name]

    def _entry(self, place: int) -> tuple[str, _Member, int]:
        """The directory's entry at a place: a name, its member, the place of the next."""
        (
            signature,
            _made_by,
            _needed,
            flags,
            method,
            _time,
            _date,
            checksum,
            packed,
            size,
            name,
            extra,
            comment,
            _disk,
            _inner,
            _outer,
            local,
        ) = _ENTRY.unpack_from(self._archive, place)
        if signature != b"PK\1\2" or flags & _ENCRYPTED:
            raise NotReadable("its directory is damaged")
        start = place + _ENTRY.size
        return (
            self._archive[start : start + name].decode(),
            _Member(method, checksum, packed, size, local),
            start + name + extra + comment,
        )

    def _content(self, member: _Member) -> bytes:
        signature, *_, name, extra = _LOCAL.unpack_from(self._archive, member.place)
        if signature != b"PK\3\4":
            raise NotReadable("a member is not where the directory says")
        start = member.place + _LOCAL.size + name + extra
        content = self._archive[start : start + member.packed_bytes]
        if member.method == _DEFLATED:
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacking.decompress(content, member.bytes + 1)
        elif member.method != _STORED:
            raise NotReadable(f"packed in another way ({member.method})")
        if len(content) != member.bytes or zlib.crc32(content) != member.checksum:
            raise NotReadable("a member is damaged")
        return content
