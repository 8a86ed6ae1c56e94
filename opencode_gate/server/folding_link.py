"""The folding process and the socket to it, from the gateway's side.

The invariant: nothing here waits but `wait`, `wait_for_room` and `close`; what is queued leaves in
its order.
"""

import collections
import contextlib
import itertools
import selectors
import socket
import subprocess
import sys

from opencode_gate.ledger.folding_frames import Report, taken_reports
from opencode_gate.server.socket_handoff import pack

_CHUNK_BYTES = 65536
_PIECES_A_CALL = 64
"""Far fewer than any system takes in one call (IOV_MAX)."""
_BUFFER_BYTES = 1 << 20

if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NO_WINDOW
else:
    _CREATION_FLAGS = 0


class FoldingLink:
    """A process that was just started.

    Raises:
        OSError: it cannot be.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._unsent: collections.deque[bytes | memoryview] = collections.deque()
        self._received = bytearray()
        self._theirs: socket.socket | None = theirs
        self.unsent_bytes = 0
        try:
            # The kernel gives what it allows; more is taken in one turn, and woken up for less.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "opencode_gate.server", "fold"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=() if sys.platform == "win32" else (theirs.fileno(),),
                creationflags=_CREATION_FLAGS,
            )
            stdin = self._process.stdin
            assert stdin is not None
            with contextlib.suppress(BrokenPipeError):
                stdin.write(pack(theirs, self._process.pid).encode() + b"\n")
                stdin.close()
        except OSError:
            self._socket.close()
            self._let_go_of_theirs()
            raise
        if sys.platform != "win32":
            self._let_go_of_theirs()

    @property
    def process_id(self) -> int:
        """The number of the process."""
        return self._process.pid

    def queue(self, head: bytes, body: bytes = b"") -> None:
        """What `send` sends next."""
        self._unsent.append(head)
        if body:
            self._unsent.append(body)
        self.unsent_bytes += len(head) + len(body)

    def send(self) -> None:
        """Sends what the process takes now.

        Raises:
            OSError: it is gone.
        """
        unsent = self._unsent
        while unsent:
            try:
                sent = self._sent()
            except BlockingIOError:
                return
            self.unsent_bytes -= sent
            while sent:
                piece = unsent[0]
                if sent < len(piece):
                    unsent[0] = memoryview(piece)[sent:]
                    break
                sent -= len(piece)
                unsent.popleft()

    def receive(self) -> list[Report]:
        """What it has said since.

        Raises:
            OSError: it is gone, and all it said was heard.
        """
        reports: list[Report] = []
        while True:
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                if self._theirs is not None and self._process.poll() is not None:
                    raise ConnectionResetError("it ended at once") from None
                return reports
            except OSError:
                chunk = b""
            if not chunk:
                if reports:
                    return reports
                raise ConnectionResetError("it closed the connection")
            self._let_go_of_theirs()
            self._received += chunk
            reports += taken_reports(self._received)

    def wait(self, timeout_s: float) -> None:
        """Returns when something can be received, or sent of what is unsent, or after a while."""
        self._wait(
            selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent_bytes else 0), timeout_s
        )

    def wait_for_room(self, timeout_s: float) -> None:
        """Returns when something can be sent, or after a while."""
        self._wait(selectors.EVENT_WRITE, timeout_s)

    def close(self, *, grace_s: float) -> None:
        """Lets go of the process; it is killed if it has not ended within that time."""
        self._socket.close()
        self._let_go_of_theirs()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self, events: int, timeout_s: float) -> None:
        # Another thread may have closed it meanwhile.
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(self._socket, events)
            selector.select(timeout_s)

    def _let_go_of_theirs(self) -> None:
        """Closes the process's end here: on POSIX it has inherited it.

        On Windows a socket may be gone if it is closed before who gets it has opened it, so that
        waits for a first word.
        """
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    def _sent(self) -> int:
        """Sends some of it in one call; how many bytes that was."""
        if sys.platform == "win32":
            return self._socket.send(self._unsent[0])
        return self._socket.sendmsg(itertools.islice(self._unsent, _PIECES_A_CALL))
