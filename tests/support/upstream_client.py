"""The client towards providers, set against a scripted provider."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from opencode_gate.config.proxies import ProxyRules
from opencode_gate.gateway.http_client import HttpUpstream
from opencode_gate.gateway.upstream import RawHeaders, UpstreamRequest, UpstreamResponse
from tests.support.scripted_upstream import Script, ScriptedUpstream, echo, scripted

HEAD = b"HTTP/1.1 200 OK\r\n"


def ask(
    port: int,
    body: bytes = b"{}",
    *,
    method: str = "POST",
    target: bytes = b"/v1/messages?beta=true&x=%3A",
    headers: RawHeaders | None = None,
) -> UpstreamRequest:
    return UpstreamRequest(
        method=method,
        scheme="http",
        host="127.0.0.1",
        port=port,
        target=target,
        headers=headers or [],
        body=body,
    )


async def whole(response: UpstreamResponse) -> bytes:
    body = b""
    while part := await response.read():
        body += part
    return body


@asynccontextmanager
async def running(
    script: Script = echo, **settings: Any
) -> AsyncIterator[tuple[HttpUpstream, ScriptedUpstream]]:
    """A client and the provider it talks to."""
    async with scripted(script) as provider:
        client = HttpUpstream(proxies=ProxyRules(), **settings)
        try:
            yield client, provider
        finally:
            await client.close()
