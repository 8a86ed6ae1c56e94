"""A prompt of a megabyte is read into memory that is there, not into pages new for each."""

import asyncio
import time
from pathlib import Path

import httpx

from opencode_gate.catalog.practice import practice_row
from tests.support.gateway import TOKEN, RunningGateway, running_gateway

PROMPT = "x" * 1_000_000
REQUESTS = 10
PATIENCE_S = 30.0
FAULTS_MAX = 200
"""Of new pages, a request; without memory that is kept it is several hundred."""


def _faults(gateway: RunningGateway) -> int:
    stat = Path(f"/proc/{gateway.process.pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[7])


async def _folded(gateway: RunningGateway, count: int) -> None:
    """Waits for so many to be in the ledger; a prompt is held until then."""
    deadline = time.monotonic() + PATIENCE_S
    while len(gateway.exchanges()) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


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

            # One after the other, as an agent asks: each finds the memory of the one before.
            for done in range(REQUESTS):
                await ask()
                await _folded(gateway, done + 1)
            before = _faults(gateway)
            for done in range(REQUESTS):
                await ask()
                await _folded(gateway, REQUESTS + done + 1)
            faults = _faults(gateway) - before
        await asyncio.to_thread(gateway.finish)
    assert faults / REQUESTS < FAULTS_MAX
