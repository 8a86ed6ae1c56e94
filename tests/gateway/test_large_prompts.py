"""A prompt of a megabyte is read into memory that is there, not into pages new for each."""

import asyncio
from pathlib import Path

import httpx

from opencode_gate.catalog.practice import practice_row
from tests.support.gateway import TOKEN, RunningGateway, running_gateway

PROMPT = "x" * 1_000_000
REQUESTS = 20
FAULTS_MAX = 200
"""Of new pages, a request; without memory that is kept it is several hundred."""


def _faults(gateway: RunningGateway) -> int:
    stat = Path(f"/proc/{gateway.process.pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[7])


async def test_a_large_prompt_costs_few_new_pages() -> None:
    with running_gateway([practice_row()]) as gateway:
        async with httpx.AsyncClient(timeout=60) as client:

            async def ask() -> None:
                answer = await client.post(
                    gateway.url("practice", "/v1/chat/completions"),
                    json={"model": "scripted", "messages": [{"role": "user", "content": PROMPT}]},
                    headers={"authorization": f"Bearer {TOKEN}"},
                )
                assert answer.status_code == 200

            for _ in range(REQUESTS):
                await ask()
            before = _faults(gateway)
            for _ in range(REQUESTS):
                await ask()
            faults = _faults(gateway) - before
        await asyncio.to_thread(gateway.finish)
    assert faults / REQUESTS < FAULTS_MAX
