"""Which requests go through an HTTP proxy, from the environment variables everybody knows.

`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, the lower-case spelling first as curl
does (https://everything.curl.dev/usingcurl/proxies/env.html). The invariant: a loopback
address is never proxied, whatever the variables say.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from opencode_gate.core.secrets import Secret

_PROXY_PORT = 80


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy. `authorization` is the value of the `Proxy-Authorization` header.

    `unusable` says why it cannot be used; requests meant for it fail with that text, since
    going around a proxy silently is what its owner did not want.
    """

    host: str
    port: int
    authorization: Secret | None = None
    unusable: str | None = None


class ProxyRules(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go: the proxy of their scheme, unless the host is an exception."""

    http: Proxy | None = None
    https: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    def proxy_for(self, scheme: str, host: str, port: int) -> Proxy | None:
        """The proxy for an origin, `None` for the direct way."""
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or is_loopback(host):
            return None
        name = host.lower().rstrip(".")
        if any(_matches(exception, name, port) for exception in self.exceptions):
            return None
        return proxy


def proxy_rules(environ: Mapping[str, str]) -> ProxyRules:
    """The rules `environ` asks for; empty variables count as unset."""
    everything = _variable(environ, "all_proxy")
    exceptions = (_variable(environ, "no_proxy") or "").replace(",", " ").split()
    http = _variable(environ, "http_proxy") or everything
    https = _variable(environ, "https_proxy") or everything
    return ProxyRules(
        http=None if http is None else read_proxy(http),
        https=None if https is None else read_proxy(https),
        exceptions=tuple(exception.lower() for exception in exceptions),
    )


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _variable(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name) or environ.get(name.upper())
    return value.strip() if value and value.strip() else None


def read_proxy(url: str) -> Proxy:
    """The proxy an address names; `http://` may be left out."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or _PROXY_PORT
    except ValueError:
        return Proxy(host="", port=0, unusable="the proxy address has no valid host or port")
    if parts.scheme != "http":
        reason = f"{parts.scheme}:// proxies are not supported, only http:// ones"
        return Proxy(host="", port=0, unusable=reason)
    if not parts.hostname:
        return Proxy(host="", port=0, unusable="the proxy address names no host")
    return Proxy(
        host=parts.hostname,
        port=port,
        authorization=_basic(parts.username, parts.password),
    )


def _basic(user: str | None, password: str | None) -> Secret | None:
    """RFC 7617: the user and password of the address, their percent-escapes undone."""
    if user is None:
        return None
    from base64 import b64encode

    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password or "")
    return Secret("Basic " + b64encode(pair).decode("ascii"))


def _matches(exception: str, name: str, port: int) -> bool:
    if exception == "*":
        return True
    exception, is_for_port = _without_port(exception, port)
    if not is_for_port:
        return False
    address = _address(name)
    if address is not None:
        try:
            return address in ipaddress.ip_network(exception, strict=False)
        except ValueError:
            return False
    domain = exception.removeprefix("*").removeprefix(".")
    return bool(domain) and (name == domain or name.endswith("." + domain))


def _without_port(exception: str, port: int) -> tuple[str, bool]:
    """The exception's host part, and whether its port, if it names one, is `port`."""
    if exception.startswith("["):
        host, _, rest = exception[1:].partition("]")
        wanted = rest.removeprefix(":")
    elif exception.count(":") == 1:
        host, _, wanted = exception.partition(":")
    else:
        host, wanted = exception, ""
    return host, not wanted or wanted == str(port)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return None
