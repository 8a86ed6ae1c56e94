"""Which provider a path belongs to, and the address it leads to there.

The client's base is `/p/<provider>` followed by the path of the provider's own base URL, so the
upstream address is the provider's origin and the rest of the raw path, byte for byte. The
invariant: a request never leaves the base path of its provider, save to a sibling version of it
(`/v1beta` beside `/v1`), so a launch token cannot be turned into a way to the rest of the host.

Some providers serve one of their formats below another address. Opencode knows a single base per
provider, so a request in that format is moved from the one base to the other here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.errors import PolicyDenied
from opencode_gate.core.semconv import WireFormat

PREFIX = b"/p/"
_VERSION = rb"v[0-9]+(?:\.[0-9]+)?(?:(?:alpha|beta|preview)[0-9]*)?"
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\])\.\.?(?:[/\\;]|$)")


class NoRoute(PolicyDenied):
    """The path belongs to no routed provider, or leaves its base."""

    http_status = 404
    error_type = "not_found_error"


@dataclass(frozen=True, slots=True)
class Target:
    """A provider with its address taken apart.

    Attributes:
        base: matches the paths that belong to it.
        base_path: the path of its address, without a slash behind.
        elsewhere: the target of a wire format that it serves below another address.
    """

    row: ProviderRow
    scheme: str
    host: str
    port: int
    base: re.Pattern[bytes]
    base_path: bytes
    elsewhere: Mapping[WireFormat, "Target"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one request goes: the target and the raw path there, without the query."""

    target: Target
    path: bytes


def target_of(row: ProviderRow) -> Target:
    """The target a routed row stands for.

    Raises:
        ValueError: the row has no usable address; such a row must not be routed.
    """
    bases = {WireFormat(wire): _target(row, url) for wire, url in row.wire_bases.items()}
    return replace(_target(row, row.base_url or ""), elsewhere=bases)


def _target(row: ProviderRow, base_url: str) -> Target:
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"{row.id} has no http(s) address: {base_url!r}")
    default_port = 443 if address.scheme == "https" else 80
    base_path = address.path.rstrip("/").encode()
    return Target(
        row=row,
        scheme=address.scheme,
        host=address.hostname,
        port=default_port if address.port is None else address.port,
        base=_base_pattern(base_path),
        base_path=base_path,
    )


def _base_pattern(base_path: bytes) -> re.Pattern[bytes]:
    parent, _, last = base_path.rpartition(b"/")
    if re.fullmatch(_VERSION, last):
        return re.compile(re.escape(parent) + b"/" + _VERSION + b"(?=/|$)")
    return re.compile(re.escape(base_path) + b"(?=/|$)")


class RouteTable:
    """The routed providers of one gateway, looked up by the first segment behind `/p/`."""

    __slots__ = ("_targets",)

    def __init__(self, rows: Iterable[ProviderRow]) -> None:
        self._targets: Mapping[bytes, Target] = {
            quote(row.id, safe="").encode(): target_of(row) for row in rows
        }

    def destination(
        self, raw_path: bytes, wire_format: WireFormat = WireFormat.UNKNOWN
    ) -> Destination:
        """Where `raw_path` (still percent-encoded, without the query) leads.

        Raises:
            NoRoute: no routed provider has this path.
        """
        if not raw_path.startswith(PREFIX):
            raise NoRoute(
                "no-route",
                "this address is a gateway for coding agents: paths begin with /p/<provider>",
                hint="start the agent with ogate run",
            )
        provider_id, slash, rest = raw_path[len(PREFIX) :].partition(b"/")
        target = self._targets.get(provider_id)
        if target is None:
            known = ", ".join(sorted(unquote(name.decode()) for name in self._targets))
            raise NoRoute(
                "no-route",
                f"provider {unquote(provider_id.decode(errors='replace'))!r} is not routed; "
                f"routed here: {known}",
                hint="add its key with ogate keys add, then start again",
            )
        path = slash + rest
        decoded = unquote_to_bytes(path)
        below = target.base.match(path)
        if below is None or _DOT_SEGMENT.search(decoded):
            raise NoRoute(
                "no-route", f"this path lies outside the address of {target.row.id}", hint=None
            )
        if target.elsewhere and wire_format in target.elsewhere:
            moved = target.elsewhere[wire_format]
            return Destination(moved, moved.base_path + path[below.end() :])
        return Destination(target, path)
