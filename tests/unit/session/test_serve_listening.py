"""One address for several processes, taken by nobody else."""

import errno
import socket
import sys

import pytest

from opencode_gate.core.errors import GatewayError
from opencode_gate.session.serve_listening import listen_on


def close(listeners: tuple[socket.socket, ...]) -> None:
    for listener in listeners:
        listener.close()


def test_all_sockets_have_one_address_and_each_accepts() -> None:
    """Also where the system chooses the port."""
    listeners = listen_on("127.0.0.1", 0, workers=3)
    (address,) = {listener.getsockname() for listener in listeners}
    for listener in listeners:
        listener.setblocking(False)
    clients, accepted = [], dict.fromkeys(listeners, 0)
    while not all(accepted.values()):
        assert len(clients) < 300
        clients.append(socket.create_connection(address))
        for listener in listeners:
            try:
                listener.accept()[0].close()
                accepted[listener] += 1
            except BlockingIOError:
                continue
    for client in clients:
        client.close()
    close(listeners)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("second", [1, 3])
def test_an_address_that_is_taken_is_said(first: int, second: int) -> None:
    """However many sockets have it, and however many are wanted."""
    listeners = listen_on("127.0.0.1", 0, workers=first)
    port = listeners[0].getsockname()[1]
    with pytest.raises(GatewayError, match=f"cannot listen on 127.0.0.1:{port}") as refusal:
        listen_on("127.0.0.1", port, workers=second)
    assert "--port takes another" in str(refusal.value.hint)
    close(listeners)
    close(listen_on("127.0.0.1", port, workers=second))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_here_is_said(host: str) -> None:
    """Another port would not help; RFC 5737 and 6761 keep these from being anybody's."""
    with pytest.raises(GatewayError, match=f"cannot listen on {host}:0") as refusal:
        listen_on(host, 0, workers=2)
    assert refusal.value.hint == "--host takes an address of this machine, or a name of one"


def test_a_port_that_only_the_system_may_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "listen", refuse)
    with pytest.raises(GatewayError, match="Permission denied") as refusal:
        listen_on("127.0.0.1", 0)
    assert refusal.value.hint == "ports below 1024 are often the system's; --port takes another"


def test_elsewhere_all_accept_from_one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is accepted by whoever comes first, and the address lives as long as one of them."""
    monkeypatch.setattr(sys, "platform", "darwin")
    one, other = listen_on("127.0.0.1", 0, workers=2)
    address = one.getsockname()
    assert other.getsockname() == address
    for listener in (other, one):
        with socket.create_connection(address):
            listener.accept()[0].close()
    one.close()
    with socket.create_connection(address):
        other.accept()[0].close()
    other.close()
