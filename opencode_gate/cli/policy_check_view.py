"""`ogate policy check --model`: the question, and the answer of the rules, shown.

The invariant: what cannot be foretold is said, not guessed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from opencode_gate.cli import figures, owner_verbs
from opencode_gate.cli.render import Block, Fact, Facts, Result, Text
from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Policy
    from opencode_gate.session.policy_check import Question, Verdict

_DENIED = 7
"""The exit status of what a rule refuses."""


def checked(
    model: str,
    about: Mapping[str, str | None],
    tokens: str,
    output_tokens: str | None,
    file: Path | None,
    *,
    as_json: bool,
) -> Result:
    """Asks the rules about a request, those of `file` where it is given.

    Args:
        model: `provider/model`.
        about: who would ask: `vkey`, `user`, `session`.
        tokens: of the prompt; `output_tokens` of the answer at most.
    """
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.catalog.prices import PriceBook
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name
    from opencode_gate.ledger.sqlite.governance import open_governance
    from opencode_gate.session.policy_check import verdict
    from opencode_gate.session.policy_reading import compared

    question = _question(model, about, tokens, output_tokens)
    places = paths()
    settings = load_settings(places, os.environ)
    catalogue = open_catalogue(places, settings)
    catalogue.provider(question.provider_id)
    policy = None if file is None else compared(file, at_us=owner_verbs.now_us()).wanted
    _require_key(question, policy)
    found = verdict(
        question,
        lambda: open_governance(places.ledger_file, read_only=True),
        PriceBook(catalogue, settings),
        clock=SystemClock(),
        time_zone=local_zone_name(),
        refuses_unknown_prices=settings.pricing.on_unknown_price == "block",
        policy=policy,
    )
    return Result(
        data=_document(question, found),
        blocks=() if as_json else list(_blocks(question, found)),
        exit_code=0 if found.is_allowed else _DENIED,
    )


def _question(
    model: str, about: Mapping[str, str | None], tokens: str, output_tokens: str | None
) -> "Question":
    from opencode_gate.config.paths import paths
    from opencode_gate.session.amounts import token_amount
    from opencode_gate.session.operator import os_user
    from opencode_gate.session.policy_budgets import session_called
    from opencode_gate.session.policy_check import LONGEST_PROMPT_TOKENS, Question
    from opencode_gate.session.policy_names import normal

    provider_id, slash, model_id = model.partition("/")
    if not (provider_id and slash and model_id):
        raise UsageError(
            "usage",
            f"{model!r} does not say whose model it is",
            hint="--model anthropic/claude-sonnet-5",
        )
    input_tokens = token_amount(tokens)
    if input_tokens > LONGEST_PROMPT_TOKENS:
        raise UsageError("usage", f"no prompt has {input_tokens:,} tokens", hint="--tokens 200k")
    vkey, user, session = about["vkey"], about["user"], about["session"]
    # At a served gateway a key stands for a person; in a session of one's own one is oneself.
    asking = os_user() if vkey is None and user is None else user
    return Question(
        provider_id=provider_id,
        model_id=model_id,
        input_tokens=input_tokens,
        output_tokens=None if output_tokens is None else token_amount(output_tokens),
        session_id=None if session is None else session_called(paths(), session),
        user=asking,
        virtual_key=None if vkey is None else normal(vkey),
    )


def _require_key(question: "Question", policy: "Policy | None") -> None:
    """A name that is mistyped is not a key that is refused.

    Raises:
        UsageError: `no-such-owner`.
    """
    from opencode_gate.config.paths import paths
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.policy_changes import open_rules, readable_policy, rules_for

    if question.virtual_key is None:
        return
    if policy is None:
        with open_rules(paths(), read_only=True) as store:
            policy, unreadable = readable_policy(store)
        if unreadable:
            return
    rules_for(policy, Owner("vkey", question.virtual_key))


def _document(question: "Question", found: "Verdict") -> dict[str, object]:
    from opencode_gate.cli.decided_view import decision_document
    from opencode_gate.core.money import usd_text

    reserved = found.reserved_nano_usd
    return {
        "allowed": found.is_allowed,
        "http_status": found.http_status,
        "code": found.code,
        "model": f"{question.provider_id}/{question.model_id}",
        "answered_by": f"{question.provider_id}/{found.model_id}" if found.is_allowed else None,
        "input_tokens": question.input_tokens,
        "output_limit_tokens": found.output_limit_tokens,
        "reserved_usd": None if reserved is None else usd_text(reserved),
        "decisions": [decision_document(decision) for decision in found.decisions],
        "not_counted": [str(owner) for owner in found.uncounted],
    }


def _blocks(question: "Question", found: "Verdict") -> "list[Block]":
    from opencode_gate.cli.policy_view import decision_facts
    from opencode_gate.session.policy_check import BYTES_PER_TOKEN

    body_bytes = question.input_tokens * BYTES_PER_TOKEN
    answer = "allowed" if found.is_allowed else f"refused: {found.code} (HTTP {found.http_status})"
    limit, reserved = found.output_limit_tokens, found.reserved_nano_usd
    other = found.model_id if found.model_id != question.model_id else None
    rows = [
        ("request", f"{question.provider_id}/{question.model_id}{_asker(question)}"),
        ("prompt", f"{question.input_tokens:,} tokens, about {body_bytes:,} bytes"),
        ("answer", answer),
        ("answered by", None if other is None else f"{question.provider_id}/{other}"),
        ("output limit", None if limit is None else f"{limit:,} tokens"),
        ("reserves", None if reserved is None else figures.money_text(reserved, decimals=4)),
        ("not known", _uncounted(found)),
    ]
    style = "green" if found.is_allowed else "red"
    blocks: list[Block] = [
        Facts(
            [Fact(label, text, style if label == "answer" else "") for label, text in rows if text]
        )
    ]
    for decision in found.decisions:
        blocks += [Text(""), decision_facts(decision)]
    return blocks


def _asker(question: "Question") -> str:
    parts = [
        ("vkey", question.virtual_key),
        ("user", question.user),
        ("session", question.session_id),
    ]
    named = ", ".join(f"{kind} {name}" for kind, name in parts if name is not None)
    return f" by {named}"


def _uncounted(found: "Verdict") -> str | None:
    if not (found.uncounted and found.is_allowed):
        return None
    named = ", ".join(map(str, found.uncounted))
    return f"how much of the rate limits of {named} is used: the gateway counts that itself"
