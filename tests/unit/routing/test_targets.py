"""Paths lead to the provider they name, and nowhere else."""

import pytest

from opencode_gate.agents.opencode.configuration import client_base_path
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.routing.targets import NoRoute, RouteTable


def _table(**addresses: str) -> RouteTable:
    return RouteTable(
        ProviderRow(id=name.replace("_", "-"), name=name, base_url=address)
        for name, address in addresses.items()
    )


@pytest.mark.parametrize(
    ("base_url", "path", "host", "port", "upstream"),
    [
        ("https://api.openai.com/v1", b"/v1/responses", "api.openai.com", 443, b"/v1/responses"),
        ("https://h/openai/v1/", b"/openai/v1/chat/completions", "h", 443, None),
        ("http://127.0.0.1:8080", b"/v1/chat/completions", "127.0.0.1", 8080, None),
        ("https://g.example/v1beta", b"/v1/models/m%2Fx:generateContent", "g.example", 443, None),
        ("https://g.example:444/v1beta", b"/v1beta/models", "g.example", 444, None),
        ("https://h/api/anthropic", b"/api/anthropic/messages", "h", 443, None),
    ],
)
def test_a_path_below_the_base_leads_there_byte_for_byte(
    base_url: str, path: bytes, host: str, port: int, upstream: bytes | None
) -> None:
    destination = _table(a=base_url).destination(b"/p/a" + path)
    assert (destination.target.host, destination.target.port) == (host, port)
    assert destination.path == (path if upstream is None else upstream)


@pytest.mark.parametrize(
    "path",
    [
        b"/",
        b"/v1/chat/completions",
        b"/p/",
        b"/p/b/v1/models",
        b"/p/a",
        b"/p/a/",
        b"/p/a/v1x/models",
        b"/p/a/admin",
        b"/p/a/v1/../admin",
        b"/p/a/v1/%2e%2e/admin",
        b"/p/a/v1/%2E%2E%2Fadmin",
        b"/p/a/v1/..%5cadmin",
        b"/p/a/v1/./x",
        b"/p/a/v1/..;/admin",
        b"/p/a/v1/..",
    ],
)
def test_a_path_outside_the_base_is_refused_with_a_404(path: bytes) -> None:
    with pytest.raises(NoRoute) as refusal:
        _table(a="https://api.example/v1").destination(path)
    assert refusal.value.http_status == 404
    assert refusal.value.code == "no-route"


@pytest.mark.parametrize("name", ["lm studio", "org/tools", "größe", "a.b_c-d~e"])
def test_a_provider_of_the_users_own_may_be_called_anything(name: str) -> None:
    """The client is told its id percent-encoded, and refusals name it as the user knows it."""
    row = ProviderRow(id=name, name=name, base_url="http://h/v1")
    table = RouteTable([row])
    path = client_base_path(row).encode() + b"/models"
    assert table.destination(path).target.row.id == name
    with pytest.raises(NoRoute, match=f"routed here: {name}"):
        table.destination(b"/p/other/v1/models")


def test_a_base_without_a_version_allows_no_sibling() -> None:
    table = _table(a="https://h/api/anthropic")
    with pytest.raises(NoRoute):
        table.destination(b"/p/a/api/anthropicx/messages")


def test_a_row_without_an_address_is_not_routed() -> None:
    with pytest.raises(ValueError, match="no http"):
        RouteTable([ProviderRow(id="a", name="A", base_url=None)])
