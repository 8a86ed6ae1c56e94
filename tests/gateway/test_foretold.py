"""What `ogate policy check` foretells of each request of a run is what the gateway then does."""

import asyncio
import os
import time
from decimal import Decimal

import httpx

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import load_settings
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.local_time import local_zone_name
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.policy import Budget, ModelRules, Owner, RateLimit, Rules
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.session.decided import decisions_of
from opencode_gate.session.policy_check import Question, Verdict, _body, verdict
from tests.support.gateway import TOKEN, RunningGateway, running_gateway
from tests.support.priced_provider import priced_provider
from tests.support.rules import give

USER = Owner("user", "tester")


def rule(usd, *, models=None, **more) -> Rules:
    budget = Budget(window="total", usd=Decimal(usd), **more)
    limits = (RateLimit(requests=1000, per="minute"),)
    return Rules(budgets=(budget,), models=models, limits=limits)


RUN = [
    (rule(1), "m", 1_000, 1_000),
    (rule(1), "m", 1_000, None),
    (rule(1), "m", 20_000, 1_000),
    (rule(1), "m", 20_000, 8_000),
    (rule(1, models=ModelRules(deny=("stub/m",))), "m", 1_000, 1_000),
    (rule(1, models=ModelRules(deny=("stub/m",), mode="shadow")), "m", 1_000, 1_000),
    (rule(1, models=ModelRules(allow=("openai/*",))), "m", 1_000, 1_000),
    (rule("0.5", at_end="downgrade:cheap"), "m", 20_000, 1_000),
    (rule("0.5", mode="shadow"), "m", 20_000, 1_000),
    (rule("0.5", at_end="warn"), "m", 1_000, 1_000),
    (rule(5), "unpriced", 1_000, 1_000),
    (rule(5), "m", 100_000, 4_000),
]
"""Rules, and what is then asked: model, tokens of the prompt, limit of the answer."""


def foretold(question: Question) -> Verdict:
    settings = load_settings(paths(), os.environ)
    return verdict(
        question,
        lambda: open_governance(paths().ledger_file, read_only=True),
        PriceBook(open_catalogue(paths(), settings), settings),
        clock=SystemClock(),
        time_zone=local_zone_name(),
        refuses_unknown_prices=False,
    )


def wait_until_settled(gateway: RunningGateway, exchanges: int) -> None:
    """Rows come a moment after their answers; leases go back a second after they were last used."""
    store = open_governance(paths().ledger_file, read_only=True)
    give_up_s = time.monotonic() + 30
    while time.monotonic() < give_up_s:
        if len(gateway.exchanges()) == exchanges and not store.lease_holders():
            break
        time.sleep(0.05)
    assert not store.lease_holders()
    store.close()


async def test_every_decision_of_a_run_is_foretold() -> None:
    open_store(paths().ledger_file).close()
    said: list[Verdict] = []
    async with priced_provider() as provider, httpx.AsyncClient(timeout=60) as client:
        with running_gateway([provider.row]) as gateway:
            for rules, model, tokens, output in RUN:
                give(paths().ledger_file, (USER, rules))
                question = Question(
                    provider_id="stub",
                    model_id=model,
                    input_tokens=tokens,
                    output_tokens=output,
                    session_id=gateway.session.id,
                    user="tester",
                )
                said.append(await asyncio.to_thread(foretold, question))
                answer = await client.post(
                    gateway.url("stub", "/v1/chat/completions"),
                    content=_body(question),
                    headers={"authorization": f"Bearer {TOKEN}"},
                )
                assert answer.status_code == (said[-1].http_status or 200), answer.text
                await asyncio.to_thread(wait_until_settled, gateway, len(said))
            gateway.finish()
            records = gateway.exchanges()
    assert len(records) == len(RUN)
    for told, record in zip(said, records, strict=True):
        assert told.decisions == decisions_of(record)
        assert told.is_allowed == (record.status is ExchangeStatus.COMPLETED)
        assert told.code == record.denial
        assert told.output_limit_tokens == record.output_limit_tokens
        assert told.reserved_nano_usd == record.reserved_cost_nano_usd
        if record.downgraded_from is not None:
            assert told.model_id == "cheap"
    assert {told.http_status for told in said} == {None, 402, 403}
    outcomes = {decision.outcome for told in said for decision in told.decisions}
    assert outcomes >= {"deny", "shadow", "lower", "downgrade", "warn"}
