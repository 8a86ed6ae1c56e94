"""The members of an archive: asked for by several threads, and where its directory is damaged."""

import io
import sys
import threading
import zipfile

import pytest

from opencode_gate.catalog.members import Members, NotReadable

THREADS = 8
NAMES = [f"models/{number}.json" for number in range(3_000)]


@pytest.fixture
def hurried() -> None:
    """Threads take turns as often as they can."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.mark.usefixtures("hurried")
def test_threads_that_ask_at_once_all_get_their_members() -> None:
    """A gateway's first requests may need models of several providers at the same time."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in NAMES:
            archive.writestr(name, name)
    members, begin = Members(file.getvalue()), threading.Barrier(THREADS)
    read: list[list[bytes]] = []

    def ask(first: int) -> None:
        begin.wait()
        read.append([members.read(name) for name in NAMES[first::THREADS]])

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(b"".join(read_by) for read_by in read) == sorted(
        "".join(NAMES[first::THREADS]).encode() for first in range(THREADS)
    )


def test_a_damaged_directory_is_damaged_however_often_it_is_asked() -> None:
    """The second to ask must not hear that a member is not there: nobody can tell."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("first", "second", "third"):
            archive.writestr(name, name)
    content = bytearray(file.getvalue())
    second_entry = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    content[second_entry] ^= 0xFF
    members = Members(bytes(content))
    for name in ("second", "second", "third"):
        with pytest.raises(NotReadable):
            members.read(name)
    assert members.read("first") == b"first"
