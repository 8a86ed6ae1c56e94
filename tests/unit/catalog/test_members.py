"""The members of an archive, asked for by several threads."""

import io
import sys
import threading
import zipfile

import pytest

from opencode_gate.catalog.members import Members

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
