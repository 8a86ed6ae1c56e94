"""Clients that would rather speak another protocol, through a real gateway process."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from opencode_gate.catalog.rows import ProviderRow
from tests.support.gateway import TOKEN, running_gateway
from tests.support.scripted_upstream import scripted

OFFER = {
    "authorization": f"Bearer {TOKEN}",
    "connection": "Upgrade, HTTP2-Settings",
    "upgrade": "h2c",
    "http2-settings": "AAEAAEAAAAIAAAAB",
}


async def _in_chunks() -> AsyncIterator[bytes]:
    yield b"{}"


@pytest.mark.parametrize("is_sized", [True, False])
async def test_an_offer_of_http_2_is_passed_over(is_sized: bool) -> None:
    """Java's own client makes it with each new connection, and does not come back after 426.

    A body in chunks cannot be read behind it: that is said, and nothing goes to the provider.
    """
    async with scripted() as provider, httpx.AsyncClient() as client:
        row = ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{provider.port}/v1")
        running = running_gateway([row], keys={"acme": "sk-real"})
        gateway = await asyncio.to_thread(running.__enter__)
        try:
            answer = await client.post(
                gateway.url("acme", "/v1/embeddings"),
                content=b'{"input": "hello"}' if is_sized else _in_chunks(),
                headers=OFFER,
            )
        finally:
            running.__exit__(None, None, None)
    if not is_sized:
        assert (answer.status_code, provider.requests) == (426, [])
        return
    assert (answer.status_code, answer.content) == (200, b'{"input": "hello"}')
    (received,) = provider.requests
    assert not received.values(b"upgrade") + received.values(b"http2-settings")
