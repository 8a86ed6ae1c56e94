"""Whom the client trusts, proven with a certificate authority made for the test."""

import asyncio
import ssl
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from opencode_gate.config.proxies import ProxyRules
from opencode_gate.config.tls import provider_context
from opencode_gate.gateway.http_client import HttpUpstream
from opencode_gate.gateway.upstream import UpstreamFailure, UpstreamRequest
from tests.support.scripted_upstream import Certificates, Peer, certificates, echo, scripted
from tests.support.upstream_client import HEAD, ask, whole


@pytest.fixture
def trusted(tmp_path: Path) -> Certificates:
    return certificates(tmp_path, "127.0.0.1", "localhost")


def ask_safely(port: int, body: bytes = b"{}", *, host: str = "127.0.0.1") -> UpstreamRequest:
    request = ask(port, body)
    request.scheme = "https"
    request.host = host
    return request


def client_for(environ: Mapping[str, str]) -> HttpUpstream:
    return HttpUpstream(proxies=ProxyRules(), tls_context=partial(provider_context, environ))


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_company_authority_is_trusted_when_named(
    tmp_path: Path, variable: str, host: str
) -> None:
    """By the variables Python's and Node's programs look at, and for its own name only."""
    trusted = certificates(tmp_path, host)
    client = client_for({variable: str(trusted.authority_file)})
    async with scripted(echo, tls=trusted.server_context) as provider:
        for body in (b"first", b"x" * 3_000_000):
            request = ask_safely(provider.port, body, host=host)
            response = await client.send(request, header_timeout_s=20)
            assert await whole(response) == body
        assert len(provider.peers) == 1
        agreed = provider.peers[0].writer.get_extra_info("ssl_object").selected_alpn_protocol()
        assert agreed == "http/1.1"
        await client.close()


async def test_an_unknown_authority_is_refused(trusted: Certificates) -> None:
    """No request leaves."""
    client = client_for({})
    async with scripted(echo, tls=trusted.server_context) as provider:
        with pytest.raises(UpstreamFailure, match="not trusted") as caught:
            await client.send(ask_safely(provider.port), header_timeout_s=20)
        assert (caught.value.kind, caught.value.bytes_sent) == ("tls", False)
        assert provider.requests == []


async def test_another_hosts_certificate_is_refused(tmp_path: Path) -> None:
    """A valid certificate of somebody else."""
    other = certificates(tmp_path, "other.example")
    client = client_for({"SSL_CERT_FILE": str(other.authority_file)})
    async with scripted(echo, tls=other.server_context) as provider:
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask_safely(provider.port), header_timeout_s=20)
        assert caught.value.kind == "tls"


async def test_a_provider_without_tls_is_refused(trusted: Certificates) -> None:
    """`https` to a plain port."""

    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.closed()

    client = client_for({"SSL_CERT_FILE": str(trusted.authority_file)})
    async with scripted(script) as provider:
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask_safely(provider.port), header_timeout_s=20)
        assert (caught.value.kind, caught.value.bytes_sent) == ("tls", False)


async def test_a_handshake_the_provider_breaks_off(trusted: Certificates) -> None:
    """Closed inside TLS."""

    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.rst()

    client = client_for({"SSL_CERT_FILE": str(trusted.authority_file)})
    async with scripted(script) as provider:
        with pytest.raises(UpstreamFailure) as caught:
            await client.send(ask_safely(provider.port), header_timeout_s=20)
        assert (caught.value.kind, caught.value.bytes_sent) == ("tls", False)


async def test_unreadable_cert_file_is_said(tmp_path: Path) -> None:
    """`SSL_CERT_FILE` replaces all trust: without it nothing could be checked."""
    client = client_for({"SSL_CERT_FILE": str(tmp_path / "missing.pem")})
    with pytest.raises(UpstreamFailure, match=r"missing\.pem") as caught:
        await client.send(ask_safely(1), header_timeout_s=20)
    assert caught.value.kind == "tls"


def test_unreadable_extra_certificates_are_only_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Node does: the machine's own store still holds."""
    context = provider_context({"NODE_EXTRA_CA_CERTS": str(tmp_path / "missing.pem")})
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert "missing.pem" in caplog.text


async def test_reading_certificates_blocks_nobody(trusted: Certificates) -> None:
    """Once, in a thread, however many connections wait for it."""
    threads = []

    def slow_context() -> ssl.SSLContext:
        threads.append(threading.current_thread())
        return provider_context({"SSL_CERT_FILE": str(trusted.authority_file)})

    client = HttpUpstream(proxies=ProxyRules(), tls_context=slow_context)
    async with scripted(echo, tls=trusted.server_context) as provider:
        sends = (client.send(ask_safely(provider.port), header_timeout_s=20) for _ in range(3))
        for response in await asyncio.gather(*sends):
            assert await whole(response) == b"{}"
        assert len(threads) == 1
        assert threads[0] is not threading.main_thread()
        await client.close()


async def test_plain_http_reads_no_certificates() -> None:
    """A local server costs nothing it does not need."""

    def never() -> ssl.SSLContext:
        raise AssertionError("certificates were read")

    client = HttpUpstream(proxies=ProxyRules(), tls_context=never)
    async with scripted() as provider:
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await whole(response) == b"{}"
        await client.close()


async def test_a_cut_stream_over_tls_is_a_failure(trusted: Certificates) -> None:
    """The connection breaks below TLS, inside the body."""
    half_is_read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"Content-Length: 10\r\n\r\nhalf!")
        await half_is_read.wait()
        await peer.rst()

    client = client_for({"SSL_CERT_FILE": str(trusted.authority_file)})
    async with scripted(script, tls=trusted.server_context) as provider:
        response = await client.send(ask_safely(provider.port), header_timeout_s=20)
        assert await response.read() == b"half!"
        half_is_read.set()
        with pytest.raises(UpstreamFailure) as caught:
            await response.read()
        assert caught.value.kind == "reset"
        await client.close()


async def test_an_early_refusal_of_an_unread_body_over_tls_ends_the_connection(
    trusted: Certificates,
) -> None:
    """What TLS has still to send would stand before the next request."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no")
        await peer.closed()

    client = client_for({"SSL_CERT_FILE": str(trusted.authority_file)})
    async with scripted(script, tls=trusted.server_context) as provider:
        for body in (b"x" * 50_000_000, b"{}"):
            response = await client.send(ask_safely(provider.port, body), header_timeout_s=20)
            assert await whole(response) == b"no"
        assert len(provider.peers) == 2
        await client.close()


async def test_an_unread_stream_over_tls_holds_the_provider_back(trusted: Certificates) -> None:
    """Back-pressure reaches through TLS, and nothing is lost by it."""
    sent = 0
    size = 64 * 1024 * 1024
    part = b"x" * 65536

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.send(part)
            sent += len(part)
        await peer.closed()

    client = client_for({"SSL_CERT_FILE": str(trusted.authority_file)})
    async with scripted(script, tls=trusted.server_context) as provider:
        response = await client.send(ask_safely(provider.port), header_timeout_s=20)
        before = -1
        while sent != before:  # until the provider stands still
            before = sent
            await asyncio.sleep(0.2)
        assert sent < size // 2
        received = 0
        while data := await response.read():
            received += len(data)
        assert received == size
        await client.close()
