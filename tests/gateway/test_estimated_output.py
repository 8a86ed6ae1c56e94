"""A stream that is cut is counted from what was delivered, through the real gateway."""

import asyncio
import json

import httpx
import pytest

from bench.estimates import vectors
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.semconv import UsageQuality
from tests.support.gateway import TOKEN, running_gateway
from tests.support.scripted_upstream import Peer, scripted

VECTORS = {vector.name: vector for vector in vectors()}


@pytest.mark.parametrize(
    ("model", "quality"),
    [("gpt-4o", UsageQuality.ESTIMATED), ("gpt-5.4", UsageQuality.LOWER_BOUND)],
)
@pytest.mark.parametrize("name", ["Python", "Japanese"])
async def test_a_cut_stream_counts_what_was_delivered_to_the_token(
    name: str, model: str, quality: UsageQuality
) -> None:
    """And says so where the model also thinks where nobody sees it."""
    vector = VECTORS[name]

    async def cut(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for start in range(0, len(vector.text), 5):
            choice = {"index": 0, "delta": {"content": vector.text[start : start + 5]}}
            await peer.send(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        await peer.fin()

    async with scripted(cut) as upstream:
        row = ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{upstream.port}/v1")
        with running_gateway([row]) as gateway:
            async with httpx.AsyncClient(timeout=30) as client:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.post(
                        gateway.url("acme", "/v1/chat/completions"),
                        json={"model": model, "stream": True, "messages": []},
                        headers={"authorization": f"Bearer {TOKEN}"},
                    )
            await asyncio.to_thread(gateway.finish)
            (record,) = gateway.exchanges()
    assert record.usage.output == vector.tokens["o200k"]
    assert record.usage_quality is quality
