"""Another process is ended by its number, and never a stranger that got the number later."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from opencode_gate.server.processes import start_time, terminate


@pytest.fixture(params=["known", "not built for it", "unknown to the kernel"])
def process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    """One that waits, where processes can be held by a descriptor and where they cannot."""

    def unknown(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as started:
        if request.param == "not built for it":
            monkeypatch.delattr(os, "pidfd_open")
        elif request.param == "unknown to the kernel":
            monkeypatch.setattr(os, "pidfd_open", unknown)
        yield started
        started.kill()


def test_the_very_process_is_ended(process: subprocess.Popen[bytes]) -> None:
    assert terminate(process.pid, start_time(process.pid))
    assert process.wait(30) == -signal.SIGTERM


def test_a_stranger_is_left_alone(process: subprocess.Popen[bytes]) -> None:
    assert not terminate(process.pid, "0")
    assert process.poll() is None


def test_one_that_is_gone_is_no_error(process: subprocess.Popen[bytes]) -> None:
    began = start_time(process.pid)
    process.kill()
    process.wait()
    assert not terminate(process.pid, began)
