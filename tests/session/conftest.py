"""What tests of gateways with a provider that never ends its answers need."""

from collections.abc import Iterator

import pytest

from opencode_gate.config.paths import paths
from tests.support.scripted_upstream_thread import ThreadedUpstream, threaded_upstream
from tests.support.served_gateway import put_key


@pytest.fixture
def ada() -> str:
    """The virtual key of that name."""
    return put_key("ada")


@pytest.fixture
def endless() -> Iterator[ThreadedUpstream]:
    """A provider `acme` with a model `m`, in the configuration."""
    with threaded_upstream() as upstream:
        file = paths().config_file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f'[providers.acme]\nbase_url = "http://127.0.0.1:{upstream.port}/v1"\n'
            'wire = "openai-chat"\nkeyless = true\n[providers.acme.models.m]\n',
            encoding="utf-8",
        )
        yield upstream
