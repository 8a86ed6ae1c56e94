"""The transport of a client, the time it has, and the ways to part from it.

The invariant: every way of parting ends with the connection closed, whatever the client does: what
it does not take in time is dropped.
"""

import asyncio
import contextlib
import socket
import struct
from typing import Final, cast

from opencode_gate.gateway.timed_protocol import TimedProtocol

IDLE_S: Final = 75.0
HEAD_S: Final = 30.0
"""A head has to be whole in this time from its first byte, whatever comes of it meanwhile."""
BODY_SILENCE_S: Final = 60.0
LINGER_S: Final = 5.0
"""How long a client may take to read the last of an answer, and send what nobody reads."""

_RESET: Final = struct.pack("ii", 1, 0)


class ClientLine(TimedProtocol):
    """What a connection has before anybody understands what is said on it."""

    __slots__ = ("_is_full", "_transport")

    def __init__(self) -> None:
        super().__init__()
        self._transport: asyncio.Transport | None = None
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there, and should say something."""
        self._transport = cast("asyncio.Transport", transport)
        self._expect_within(IDLE_S)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone."""
        self._transport = None
        self._expect_nothing()

    def abort(self) -> None:
        """Closes at once; what is lost of an answer then is seen to be."""
        transport = self._transport
        if transport is None:
            return
        if transport.get_write_buffer_size():
            self._reset()
        else:
            transport.abort()

    def _is_patient(self) -> bool:
        """Whether nothing is expected of the client now."""
        return False

    def _close_idle(self) -> None:
        """Closes what nothing happens on; a client of TLS need not say goodbye."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._close_sent()
        else:
            self._transport.abort()

    def _close_sent(self) -> None:
        """Closes when all has been sent."""
        if self._transport is not None:
            self._transport.close()
            self._expect_within(LINGER_S)

    def _say_goodbye(self) -> None:
        """Closes when the client has: closing on what it still sends could cost it the answer."""
        transport = self._transport
        if transport is None:
            return
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:  # the client has gone this very moment
                transport.abort()
                return
            transport.resume_reading()
        else:
            transport.close()
        self._expect_within(LINGER_S)

    def _reset(self) -> None:
        """Closes in a way that no client takes for a clean end."""
        if self._transport is not None:
            raw = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _too_late(self) -> None:
        if self._is_patient():
            self._expect_within(IDLE_S)
        else:
            self.abort()
