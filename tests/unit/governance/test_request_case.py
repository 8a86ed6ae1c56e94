"""What a request may take at most, from its bytes, its model and its own limits."""

import json
from decimal import Decimal

import pytest

from opencode_gate.catalog.rows import ModelPrice
from opencode_gate.core.clock import SystemClock
from opencode_gate.governance.admission import Caller
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.grants import Ask
from opencode_gate.governance.policy import Owner
from opencode_gate.governance.request_case import (
    OUTPUT_LIMIT_TOKENS,
    TERMS_HOLD_S,
    Case,
    Cases,
    ModelTerms,
)
from opencode_gate.governance.worst_case import HIDDEN_INPUT_TOKENS
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.routes import identify

OWNER = Owner("team", "core")
TERMS = {
    "m": ModelTerms(
        price=ModelPrice(input=Decimal(1), output=Decimal(10)),
        context_tokens=200_000,
        output_tokens=8_000,
    ),
    "dear": ModelTerms(
        price=ModelPrice(input=Decimal(2), output=Decimal(30)),
        context_tokens=400_000,
        output_tokens=64_000,
    ),
    "blind": ModelTerms(
        price=ModelPrice(input=Decimal(1), output=Decimal(10)),
        context_tokens=0,
        output_tokens=8_000,
    ),
    "endless": ModelTerms(price=ModelPrice(input=Decimal(1), output=Decimal(10))),
}


async def case_of(model: str = "m", **members: object) -> tuple[Case, int]:
    """The case of a chat request, and the size of its body."""
    route = identify("POST", "/v1/chat/completions")
    body = json.dumps({"model": model, "messages": [], **members}).encode()
    ask = Ask(
        exchange_id="x",
        caller=Caller(session_id="s", user=None, virtual_key=None, token=b""),
        provider_id="p",
        route=route,
        facts=read_facts(route, body),
        body=body,
    )
    cases = Cases(lambda provider, name: TERMS.get(name or "", ModelTerms()), SystemClock())
    return await cases.of(ask, model), len(body)


async def test_the_amount_is_the_worst_case_of_body_and_limit() -> None:
    case, size = await case_of(max_tokens=1_000)
    input_tokens = size + HIDDEN_INPUT_TOKENS
    assert case.amount("usd", OWNER) == input_tokens * 1_000 + 1_000 * 10_000
    assert case.amount("tokens", OWNER) == input_tokens + 1_000


async def test_each_answer_that_is_asked_for_counts() -> None:
    one, size = await case_of(max_tokens=1_000, n=1)
    three, _ = await case_of(max_tokens=1_000, n=3)
    assert three.amount("tokens", OWNER) - one.amount("tokens", OWNER) == 2_000
    fits = three.output_for("tokens", size + HIDDEN_INPUT_TOKENS + 600)
    assert fits == 200


@pytest.mark.parametrize(
    ("model", "asked", "tokens", "must_limit"),
    [
        ("m", 1_000, 1_000, False),
        ("m", None, 8_000, False),
        # What the catalogue knows may be old: the limit is written, so that it holds.
        ("m", 20_000, 8_000, True),
        ("endless", None, OUTPUT_LIMIT_TOKENS, True),
        ("endless", 90_000, 90_000, False),
    ],
)
async def test_no_answer_can_be_longer_than_was_reserved(model, asked, tokens, must_limit) -> None:
    members = {} if asked is None else {"max_tokens": asked}
    case, _ = await case_of(model, **members)
    assert (case.output_tokens, case.must_limit) == (tokens, must_limit)


async def test_the_dearest_of_the_models_a_router_may_take_counts() -> None:
    case, size = await case_of(models=["dear"], max_tokens=100)
    assert case.amount("usd", OWNER) == (size + HIDDEN_INPUT_TOKENS) * 2_000 + 100 * 30_000


async def test_a_dearer_tier_counts_in_whichever_words_it_is_asked_for() -> None:
    """Servers that know only one of the two members pass over the other."""
    plain, _ = await case_of(max_tokens=100)
    dear, _ = await case_of(max_tokens=100, service_tier="priority", speed="standard")
    assert dear.amount("usd", OWNER) > 2 * plain.amount("usd", OWNER)


async def test_a_window_that_one_of_several_models_does_not_tell_bounds_nothing() -> None:
    """What the body names may be read by that one."""
    case, _ = await case_of(models=["blind"], tools=[{"type": "web_search"}])
    assert case.input_tokens is None


async def test_the_case_of_a_request_as_it_came_is_the_same_without_waiting() -> None:
    """And there is none of what would have to be looked up first."""
    route = identify("POST", "/v1/chat/completions")
    cases = Cases(lambda provider, name: TERMS.get(name or "", ModelTerms()), SystemClock())
    for members in ({}, {"n": 3}, {"max_tokens": 99_000}, {"service_tier": "priority"}):
        body = json.dumps({"model": "m", "messages": [], **members}).encode()
        facts = read_facts(route, body)
        caller = Caller(session_id="s", user=None, virtual_key=None, token=b"")
        ask = Ask(
            exchange_id="x", caller=caller, provider_id="p", route=route, facts=facts, body=body
        )
        now_s = SystemClock().monotonic_s()
        if not members:
            assert cases.now(ask, facts, now_s) is None
        assert await cases.of(ask, "m") == cases.now(ask, facts, now_s)
        assert cases.now(ask, facts, now_s + TERMS_HOLD_S + 60) is None


async def test_what_is_known_of_models_is_bounded_whatever_they_are_called() -> None:
    cases = Cases(lambda provider, name: ModelTerms(), SystemClock())
    for number in range(600):
        await cases._known("p", f"m{number}")
        await cases._known("p", "x" * 1_000 + str(number))
    assert len(cases._tariffs) <= 512
    assert max(len(model or "") for _, model in cases._tariffs) < 1_000


async def test_what_nobody_can_say_is_refused() -> None:
    unknown, _ = await case_of("nobody's")
    with pytest.raises(Denied) as refused:
        unknown.amount("usd", OWNER)
    assert refused.value.code == "unknown-price"
    assert unknown.amount("tokens", OWNER) > 0
    stored, _ = await case_of("endless", tools=[{"type": "web_search"}])
    for unit in ("usd", "tokens"):
        with pytest.raises(Denied) as refused:
            stored.amount(unit, OWNER)
        assert refused.value.code == "operation-denied"


async def test_a_fallback_without_a_price_leaves_none_known() -> None:
    case, _ = await case_of(models=["m", "nobody's"])
    with pytest.raises(Denied):
        case.amount("usd", OWNER)
