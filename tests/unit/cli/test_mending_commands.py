"""The command that a refusal names is one that exists, with those options."""

import shlex
from decimal import Decimal

import pytest

from opencode_gate.cli import command_group
from opencode_gate.cli.main import main
from opencode_gate.governance import sentences
from opencode_gate.governance.decisions import Decision
from opencode_gate.governance.models_allowed import check_models
from opencode_gate.governance.policy import Budget, ModelRules, Owner, RateLimit
from opencode_gate.governance.windows import ENDLESS
from opencode_gate.wire.refusals import WORD_JOINER

OWNERS = [Owner(kind, "core-1") for kind in ("session", "user", "vkey", "team", "customer")]
BUDGETS = [
    Budget(window="session", usd=Decimal(5)),
    Budget(window="day", tokens=10**6, rolling=True, since_us=0),
    Budget(window="total", usd=Decimal("429.50")),
]
LIMITS = [
    RateLimit(requests=60, per="minute"),
    RateLimit(tokens=60_000, per="minute"),
    RateLimit(tokens=60_000, per="hour"),
    RateLimit(concurrent=4),
]
LISTS = [
    ModelRules(deny=("*opus*",)),
    ModelRules(deny=("*opus*", "openai/*")),
    ModelRules(allow=("anthropic/*", "openai/gpt-5-mini")),
    ModelRules(allow=tuple(f"p/m{number}" for number in range(20))),
]


def decisions(owner: Owner) -> list[Decision | None]:
    return [
        *(
            sentences.budget_exceeded(
                owner, one, ENDLESS, spent=1, reserved=1, needed=1, zone_name="UTC"
            )
            for one in BUDGETS
        ),
        *(sentences.rate_limited(owner, one) for one in LIMITS),
        *(
            check_models(owner, rules, *model)
            for rules in LISTS
            for model in (("openai", "gpt-5"), ("anthropic", "claude-opus-5"), ("x", None))
        ),
        sentences.operation_denied(owner, "this"),
        sentences.input_unbounded(owner, "p/m"),
        sentences.price_unknown(owner, "p/m"),
        sentences.key_unknown(),
        sentences.key_disabled(owner.name),
        sentences.key_expired(owner.name, 0),
        sentences.policy_unreadable("why"),
        sentences.ledger_locked("why"),
    ]


def parse(words: list[str]) -> None:
    """Reads a command line as `ogate` does, without doing what it says."""
    context = command_group.root().make_context("ogate", words)
    group, rest = context.command, words
    while hasattr(group, "resolve_command"):
        name, group, rest = group.resolve_command(context, rest)
        context = group.make_context(name, list(rest), parent=context)


@pytest.mark.parametrize("owner", OWNERS, ids=str)
def test_every_command_named_in_a_decision_can_be_typed(owner) -> None:
    commands = {one.command for one in decisions(owner) if one is not None}
    assert len(commands) >= 8
    for command in commands:
        assert command is not None
        program, *words = shlex.split(command)
        assert program == "ogate"
        parse(words)


def test_a_command_that_does_not_exist_is_found_here() -> None:
    for words in (["budgets", "lift", "day", "5"], ["teams", "set", "core", "--rpms", "5"]):
        with pytest.raises(Exception, match="No such"):
            parse(words)


def test_a_name_copied_from_a_refusal_is_the_name(capsys) -> None:
    """Names are broken up for Opencode by what no terminal shows."""
    assert main(["teams", "create", "team-502"]) == 0
    capsys.readouterr()
    assert main(["teams", "show", f"team-5{WORD_JOINER}02", "--json"]) == 0
    assert "team-502" in capsys.readouterr().out
