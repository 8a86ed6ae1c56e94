"""Which way requests take, and the way through a proxy that really stands there."""

import base64
from functools import partial
from pathlib import Path

import pytest

from opencode_gate.config.proxies import proxy_rules
from opencode_gate.config.tls import provider_context
from opencode_gate.gateway.http_client import HttpUpstream
from opencode_gate.gateway.upstream import UpstreamFailure
from tests.support.scripted_upstream import Peer, certificates, echo, forward_proxy, scripted
from tests.support.upstream_client import ask, whole

PROXY = "http://proxy.example:3128"


def way(environ: dict[str, str], url: str) -> str:
    """`host:port` of the proxy for `scheme://host:port`, or `direct`."""
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    proxy = proxy_rules(environ).proxy_for(scheme, host.strip("[]"), int(port))
    return "direct" if proxy is None else f"{proxy.host}:{proxy.port}"


@pytest.mark.parametrize(
    ("environ", "https", "http"),
    [
        ({}, "direct", "direct"),
        ({"HTTPS_PROXY": PROXY}, "proxy.example:3128", "direct"),
        ({"https_proxy": PROXY}, "proxy.example:3128", "direct"),
        ({"HTTP_PROXY": PROXY}, "direct", "proxy.example:3128"),
        ({"ALL_PROXY": PROXY}, "proxy.example:3128", "proxy.example:3128"),
        ({"all_proxy": PROXY, "https_proxy": "http://s:1"}, "s:1", "proxy.example:3128"),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://lower:1"}, "lower:1", "direct"),
        ({"HTTPS_PROXY": "  "}, "direct", "direct"),
        ({"HTTPS_PROXY": "bare.example:8080"}, "bare.example:8080", "direct"),
        ({"HTTPS_PROXY": "http://[::2]"}, "::2:80", "direct"),
    ],
)
def test_variables(environ: dict[str, str], https: str, http: str) -> None:
    """Each scheme has its own, ALL_PROXY stands in, the lower-case spelling wins."""
    assert way(environ, "https://api.example:443") == https
    assert way(environ, "http://api.example:80") == http


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", "https://api.example:443", True),
        ("api.example", "https://api.example:443", True),
        ("API.Example", "https://api.EXAMPLE:443", True),
        ("api.example", "https://api.example.:443", True),
        ("example", "https://api.example:443", True),
        (".example", "https://api.example:443", True),
        ("*.example", "https://api.example:443", True),
        ("other, api.example", "https://api.example:443", True),
        ("other api.example", "https://api.example:443", True),
        ("pi.example", "https://api.example:443", False),
        ("api.example.org", "https://api.example:443", False),
        (",", "https://api.example:443", False),
        ("api.example:443", "https://api.example:443", True),
        ("api.example:8443", "https://api.example:443", False),
        ("10.1.2.3", "https://10.1.2.3:443", True),
        ("10.0.0.0/8", "https://10.1.2.3:443", True),
        ("10.0.0.0/8", "https://11.1.2.3:443", False),
        ("10.0.0.0/8", "https://api.example:443", False),
        ("2001:db8::/32", "https://[2001:db8::1]:443", True),
        ("[2001:db8::1]:443", "https://[2001:db8::1]:443", True),
        ("[2001:db8::1]:80", "https://[2001:db8::1]:443", False),
    ],
)
def test_exceptions(no_proxy: str, url: str, is_direct: bool) -> None:
    """Names with their subdomains, addresses, networks, ports; nothing that only looks alike."""
    environ = {"ALL_PROXY": PROXY, "NO_PROXY": no_proxy}
    assert (way(environ, url) == "direct") is is_direct


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434",
        "http://127.8.9.1:80",
        "http://localhost:1234",
        "http://LOCALHOST.:1234",
        "http://ollama.localhost:1234",
        "https://[::1]:443",
    ],
)
def test_loopback_is_never_proxied(url: str) -> None:
    """A local model server is on this machine, whatever the variables say."""
    assert way({"ALL_PROXY": PROXY, "NO_PROXY": "other"}, url) == "direct"


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://proxy.example:x", "socks5://proxy.example", "http://"]
)
def test_an_address_that_is_none_is_not_gone_around(url: str) -> None:
    """Its owner did not want the direct way, and other schemes and hosts must go on working."""
    proxy = proxy_rules({"HTTPS_PROXY": url}).proxy_for("https", "api.example", 443)
    assert proxy is not None and proxy.unusable is not None
    assert way({"HTTPS_PROXY": url}, "http://api.example:80") == "direct"


def test_the_password_does_not_show() -> None:
    """Rules may be logged."""
    rules = proxy_rules({"ALL_PROXY": "http://me:hunter2@proxy.example:1"})
    assert "hunter2" not in repr(rules)
    assert base64.b64encode(b"me:hunter2").decode() not in repr(rules)


async def test_https_goes_through_a_tunnel(tmp_path: Path) -> None:
    """The proxy sees the name and our credentials for it; TLS is with the provider itself."""
    known = certificates(tmp_path, "api.example")
    async with (
        scripted(echo, tls=known.server_context) as provider,
        scripted(forward_proxy(lambda _: provider.port)) as proxy,
    ):
        client = HttpUpstream(
            proxies=proxy_rules({"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{proxy.port}"}),
            tls_context=partial(provider_context, {"SSL_CERT_FILE": str(known.authority_file)}),
        )
        for body in (b"first", b"x" * 2_000_000):
            request = ask(443, body)
            request.scheme, request.host = "https", "api.example"
            response = await client.send(request, header_timeout_s=20)
            assert await whole(response) == body
        await client.close()
        assert [received.line for received in proxy.requests] == [
            b"CONNECT api.example:443 HTTP/1.1"
        ]
        credentials = b"Basic " + base64.b64encode(b"me:p@ss")
        assert proxy.requests[0].values(b"proxy-authorization") == [credentials]
        assert provider.requests[0].values(b"host") == [b"api.example"]
        assert provider.requests[0].values(b"proxy-authorization") == []


async def test_http_is_asked_for_in_absolute_form() -> None:
    """RFC 9112 §3.2.2: the proxy learns from the request line where it leads."""
    async with scripted(forward_proxy(lambda _: None)) as proxy:
        environ = {"HTTP_PROXY": f"http://me:pw@127.0.0.1:{proxy.port}"}
        client = HttpUpstream(proxies=proxy_rules(environ))
        for _ in range(2):
            request = ask(8080, b"body", target=b"/v1/x?y=%2F")
            request.host = "api.example"
            response = await client.send(request, header_timeout_s=5)
            assert await whole(response) == b"body"
        await client.close()
        assert len(proxy.peers) == 1
        received = proxy.requests[1]
        assert received.line == b"POST http://api.example:8080/v1/x?y=%2F HTTP/1.1"
        assert received.values(b"host") == [b"api.example:8080"]
        assert received.values(b"proxy-authorization") == [b"Basic " + base64.b64encode(b"me:pw")]


async def wants_credentials(peer: Peer) -> None:
    await peer.request()
    await peer.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")


async def hangs_up(peer: Peer) -> None:
    await peer.request()
    await peer.fin()


async def talks_nonsense(peer: Peer) -> None:
    await peer.send(b"220 mail.example ESMTP\r\n\r\n")
    await peer.closed()


async def never_ends(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000)
    await peer.closed()


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (forward_proxy(lambda _: None), "answered 403"),
        (wants_credentials, "credentials"),
        (hangs_up, "closed the connection"),
        (talks_nonsense, "does not speak HTTP"),
        (never_ends, "does not speak HTTP"),
    ],
)
async def test_a_proxy_that_will_not(script, says: str) -> None:
    """Told apart from the provider's own troubles; the password stays out of the text."""
    async with scripted(script) as proxy:
        environ = {"HTTPS_PROXY": f"http://me:hunter2@127.0.0.1:{proxy.port}"}
        client = HttpUpstream(proxies=proxy_rules(environ))
        request = ask(443)
        request.scheme, request.host = "https", "api.example"
        with pytest.raises(UpstreamFailure, match=says) as caught:
            await client.send(request, header_timeout_s=20)
        assert (caught.value.kind, caught.value.bytes_sent) == ("proxy", False)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there(scheme: str) -> None:
    """Going around it silently is what its owner did not want."""
    async with scripted() as proxy:
        port = proxy.port
    client = HttpUpstream(proxies=proxy_rules({"ALL_PROXY": f"http://127.0.0.1:{port}"}))
    request = ask(443)
    request.scheme, request.host = scheme, "api.example"
    with pytest.raises(UpstreamFailure, match="proxy") as caught:
        await client.send(request, header_timeout_s=20)
    assert (caught.value.kind, caught.value.bytes_sent) == ("proxy", False)


@pytest.mark.parametrize("url", ["socks5://proxy.example:1080", "http://:3128", "http://a:port"])
async def test_a_proxy_address_we_cannot_use(url: str) -> None:
    """Said when it is needed; it does not stop what needs no proxy."""
    client = HttpUpstream(proxies=proxy_rules({"ALL_PROXY": url}))
    request = ask(443)
    request.host = "api.example"
    with pytest.raises(UpstreamFailure, match="prox") as caught:
        await client.send(request, header_timeout_s=5)
    assert (caught.value.kind, caught.value.bytes_sent) == ("proxy", False)
    async with scripted() as provider:
        response = await client.send(ask(provider.port), header_timeout_s=5)
        assert await whole(response) == b"{}"
        await client.close()
