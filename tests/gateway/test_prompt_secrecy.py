"""Nothing that was said is on disk: searched for byte for byte, while a gateway runs and after."""

import asyncio
import base64
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import load_settings
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.server.compose import settle_dead
from opencode_gate.wire.prompt_parts import MESSAGES, PART_BYTES, unpacked
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.scripted_upstream import Peer, scripted

SAID = {
    "system": "heliotrope-instructions-of-the-house",
    "prompt": "vermilion-question-of-the-user",
    "tool": "cerulean-description-of-a-tool",
    "arguments": "ochre-arguments-of-a-call",
    "answer": "magenta-answer-of-the-model",
    "reasoning": "saffron-thought-of-the-model",
    "error": "indigo-words-of-a-refusal",
}


def _forms() -> list[bytes]:
    """Every phrase as it is, and in the disguises a careless program gives it."""
    plain = [phrase.encode() for phrase in SAID.values()]
    return [
        *plain,
        *(phrase.decode().encode("utf-16-le") for phrase in plain),
        *(base64.b64encode(phrase)[4:-4] for phrase in plain),
        *(phrase.hex().encode() for phrase in plain),
        *(hashlib.blake2b(phrase, digest_size=8).digest() for phrase in plain),
        *(hashlib.sha256(phrase).digest() for phrase in plain),
    ]


def _files_with_any_of_it(folder: Path) -> list[Path]:
    forms = _forms()
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and any(form in file.read_bytes() for form in forms)
    ]


TOOL = {
    "type": "function",
    "function": {"name": "glob", "description": SAID["tool"], "parameters": {"type": "object"}},
}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": SAID["system"]},
        {"role": "user", "content": SAID["prompt"]},
    ],
    "tools": [TOOL],
}
ANTHROPIC: dict[str, Any] = {
    "model": "m",
    "system": [{"type": "text", "text": SAID["system"]}],
    "messages": [{"role": "user", "content": SAID["prompt"]}],
    "tools": [{"name": "glob", "description": SAID["tool"], "input_schema": {}}],
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": SAID["system"],
    "input": SAID["prompt"],
    "tools": [{"type": "function", "name": "glob", "description": SAID["tool"]}],
}
GEMINI: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": SAID["system"]}]},
    "contents": [{"role": "user", "parts": [{"text": SAID["prompt"]}]}],
    "tools": [{"functionDeclarations": [{"name": "glob", "description": SAID["tool"]}]}],
}
REQUESTS = [
    ("/v1/chat/completions", CHAT),
    ("/v1/messages", ANTHROPIC),
    ("/v1/responses", RESPONSES),
    ("/v1beta/models/m:generateContent", GEMINI),
]

CHUNKS = [
    {"reasoning_content": SAID["reasoning"]},
    {"content": SAID["answer"]},
    {"tool_calls": [{"function": {"name": "glob", "arguments": SAID["arguments"]}}]},
]
EVENTS = b"".join(
    b"data: " + json.dumps({"model": "m", "choices": [{"delta": delta}]}).encode() + b"\n\n"
    for delta in CHUNKS
)


async def _provider(peer: Peer) -> None:
    """Answers with what it was asked and more, refuses, or streams without an end."""
    while (received := await peer.request()) is not None:
        if b'"stream"' in received.body:
            await peer.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(EVENTS), EVENTS)
            )
            await peer.closed()
        elif b'"refuse"' in received.body:
            body = json.dumps({"error": {"message": SAID["error"], "type": "bad_request"}}).encode()
            await peer.send(
                b"HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        else:
            answer = {"content": SAID["answer"], "choices": [{"message": CHUNKS[1]}], "usage": {}}
            await peer.answer(json.dumps(answer).encode(), b"Content-Type: application/json")


def _row(port: int) -> ProviderRow:
    return ProviderRow(id="acme", name="Acme", base_url=f"http://127.0.0.1:{port}/v1")


async def _ask(
    client: httpx.AsyncClient, gateway: RunningGateway, path: str, body: object
) -> httpx.Response:
    headers = {"authorization": f"Bearer {TOKEN}", "x-session-id": "ses_1"}
    return await client.post(gateway.url("acme", path), json=body, headers=headers)


async def test_no_word_of_a_prompt_or_an_answer_is_kept(
    isolated_home: Path, tmp_path: Path
) -> None:
    """All four formats, refusals, an unreadable body and a stream that is cut."""
    home = isolated_home / "ogate"
    async with scripted(_provider) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            for path, body in REQUESTS:
                answer = await _ask(client, gateway, path, body)
                assert SAID["answer"] in answer.text
            refused = await _ask(client, gateway, REQUESTS[0][0], {**CHAT, "user": "refuse"})
            assert SAID["error"] in refused.text
            unread = await _ask(client, gateway, REQUESTS[0][0], [SAID["prompt"]])
            assert unread.status_code == 400
            async with client.stream(
                "POST",
                gateway.url("acme", REQUESTS[0][0]),
                json={**CHAT, "stream": True},
                headers={"authorization": f"Bearer {TOKEN}"},
            ) as streamed:
                assert SAID["answer"].encode() in await anext(streamed.aiter_raw())
                assert _files_with_any_of_it(tmp_path) == []
            await asyncio.to_thread(gateway.finish)
            rows = gateway.exchanges()
    assert _files_with_any_of_it(tmp_path) == []
    # It was really looked at, or nothing above would mean anything.
    assert len([row for row in rows if row.parts]) == len(REQUESTS) + 2
    assert {row.tool_set for row in rows if row.parts} != {None}
    key = paths().prompt_key.read_bytes()
    said = json.dumps(CHAT["messages"][1], separators=(",", ":")).encode()
    chat = next(row for row in rows if row.parts)
    assert chat.parts is not None
    assert (
        unpacked(chat.parts)[MESSAGES].hash
        == hashlib.blake2b(said, digest_size=8, key=key).digest()
    )
    assert not any(
        key in file.read_bytes()
        for file in home.rglob("*")
        if file.is_file() and file != paths().prompt_key
    )


async def test_a_gateway_that_is_killed_leaves_none_of_it_either(tmp_path: Path) -> None:
    """The journal of a stream in flight, and what the next start makes of it."""
    async with scripted(_provider) as upstream, httpx.AsyncClient(timeout=30) as client:
        with running_gateway([_row(upstream.port)]) as gateway:
            await _ask(client, gateway, *REQUESTS[0])
            async with client.stream(
                "POST",
                gateway.url("acme", REQUESTS[0][0]),
                json={**CHAT, "stream": True},
                headers={"authorization": f"Bearer {TOKEN}"},
            ) as streamed:
                await anext(streamed.aiter_raw())
                os.kill(gateway.process.pid, signal.SIGKILL)
                await asyncio.to_thread(gateway.process.wait, 30)
            assert list(paths().journals.iterdir())
            assert _files_with_any_of_it(tmp_path) == []
    settle_dead(paths(), load_settings(paths(), {}))
    assert _files_with_any_of_it(tmp_path) == []
    store = open_store(paths().ledger_file)
    statuses = [row.status for row in store.exchanges(gateway.session.id)]
    store.close()
    assert statuses == [ExchangeStatus.COMPLETED, ExchangeStatus.INTERRUPTED]


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    for number, form in enumerate(_forms()):
        (tmp_path / f"{number}").write_bytes(b"before" + form + b"after")
    assert len(_files_with_any_of_it(tmp_path)) == len(_forms())
    assert PART_BYTES == 12
