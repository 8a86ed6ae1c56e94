"""Rules go into the ledger and come back as they were, and unreadable ones are named."""

from decimal import Decimal

import pytest

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.governance.policy import (
    Budget,
    Customer,
    ModelRules,
    Owner,
    Rules,
    Team,
    VirtualKey,
    document_of,
    policy_of,
)


def test_every_kind_of_owner_comes_back_as_it_was() -> None:
    """A document is the whole of an owner's rules."""
    rules = {
        ("session", "01S"): Rules(budgets=(Budget(window="session", usd=Decimal("5.25")),)),
        ("user", "ada"): Rules(time_zone="Europe/Berlin"),
        ("vkey", "ci"): VirtualKey(public_id="a" * 12, secret_hash="s$h", team="core"),
        ("team", "core"): Team(customer="acme", models=ModelRules(deny=("openai/*",))),
        ("customer", "acme"): Customer(budgets=(Budget(window="month", tokens=7),)),
    }
    documents = [(kind, name, document_of(one)) for (kind, name), one in rules.items()]
    policy = policy_of(3, documents)
    assert policy.revision == 3
    above = policy.owners_of(session_id="01S", user="ada", virtual_key="ci")
    assert above == tuple((Owner(*owner), one) for owner, one in rules.items())


@pytest.mark.parametrize(
    ("kind", "text"),
    [("team", "{"), ("team", '{"budgets": [{"window": "day"}]}'), ("planet", "{}"), ("user", None)],
)
def test_rules_that_make_no_sense_are_named(kind: str, text: str | None) -> None:
    """A rule that cannot be read is never taken for no rule."""
    with pytest.raises(PolicyDenied) as raised:
        policy_of(1, [("user", "ada", "{}"), (kind, "core", text)])
    assert raised.value.code == "policy-unreadable"
    assert f"{kind} core" in raised.value.message


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        (None, None),
        ("1970-01-01T00:00:01+00:00", 1_000_000),
        ("1970-01-01T01:00:01+01:00", 1_000_000),
        ("1970-01-01T00:00:01", 1_000_000),
        ("tomorrow", 0),
        ("", 0),
    ],
)
def test_a_key_holds_until_the_instant_that_is_written(
    text: str | None, expected_us: int | None
) -> None:
    key = VirtualKey(public_id="a" * 12, secret_hash="s$h", expires_at=text)
    assert key.expires_us == expected_us


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_the_ends_of_the_calendar_are_instants_too(text: str) -> None:
    key = VirtualKey(public_id="a" * 12, secret_hash="s$h", expires_at=text)
    assert key.expires_us is not None
    assert (key.expires_us > 0) is text.startswith("9999")
