"""A provider that serves a format below another address gets that format's requests there."""

import pytest

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import Settings
from opencode_gate.core.semconv import WireFormat
from opencode_gate.routing.targets import NoRoute, RouteTable, target_of

ROW = ProviderRow(
    id="a",
    name="A",
    base_url="https://h.example/api/v1",
    wire_bases={"anthropic": "https://claude.example:444/anthropic/v1", "gemini": "http://g"},
)


@pytest.mark.parametrize(
    ("path", "wire_format", "host", "port", "upstream"),
    [
        (b"/api/v1/messages", "anthropic", "claude.example", 444, b"/anthropic/v1/messages"),
        (b"/api/v1beta/messages", "anthropic", "claude.example", 444, b"/anthropic/v1/messages"),
        (b"/api/v1/models/m:x", "gemini", "g", 80, b"/models/m:x"),
        (b"/api/v1/chat/completions", "openai-chat", "h.example", 443, None),
        (b"/api/v1/models", "unknown", "h.example", 443, None),
    ],
)
def test_only_that_formats_requests_are_moved(path, wire_format, host, port, upstream) -> None:
    there = RouteTable([ROW]).destination(b"/p/a" + path, WireFormat(wire_format))
    assert (there.target.host, there.target.port) == (host, port)
    assert there.path == (path if upstream is None else upstream)
    assert there.target.row is ROW


def test_a_moved_request_stays_as_confined_as_any_other() -> None:
    for path in (b"/p/a/api/v1/../messages", b"/p/a/other/messages", b"/p/a/anthropic/v1/messages"):
        with pytest.raises(NoRoute):
            RouteTable([ROW]).destination(path, WireFormat.ANTHROPIC_MESSAGES)


def test_every_working_provider_of_the_catalogue_makes_a_target() -> None:
    environ = dict.fromkeys(
        ("AZURE_RESOURCE_NAME", "CLOUDFLARE_ACCOUNT_ID", "DATABRICKS_HOST", "SNOWFLAKE_ACCOUNT"),
        "x",
    )
    rows = open_catalogue(paths(), Settings(), environ).providers().values()
    made = [target_of(row) for row in rows if row.why_not is None and row.base_url is not None]
    assert len(made) >= 208
    (azure,) = [target for target in made if target.row.id == "azure"]
    assert azure.elsewhere[WireFormat.ANTHROPIC_MESSAGES].host == "x.services.ai.azure.com"
