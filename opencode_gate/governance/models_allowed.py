"""Which models an owner may use: globs over `provider/model`.

The idea: `*` stands for any characters, `/` among them, `?` for one; a pattern without `/` is
about the model, whoever serves it. The invariants: what is denied stays denied whatever else
allows it; upper and lower case are one, and so are a model with and without the `models/` that
Gemini's addresses put before it, since servers take either and a rule must not be got around by
spelling; where there is any rule, a request that names no model is refused.
"""

import difflib
import fnmatch
import re
import shlex
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from opencode_gate.governance.decisions import Decision
from opencode_gate.governance.policy import ModelRules, Owner
from opencode_gate.governance.wording import owner_text, rules_command

NAME_CHARS_MAX = 512
"""No model has a longer name; one that has counts as none."""
_SHOWN_MAX = 8


def check_models(
    owner: Owner, rules: ModelRules, provider_id: str, model_id: str | None
) -> Decision | None:
    """What the rules have against a model, `None` if nothing.

    Where no model of the provider could be used at all, the decision is about the provider.
    """
    if model_id is not None and len(model_id) > NAME_CHARS_MAX:
        model_id = None
    return _remembered(owner, rules, provider_id, model_id)


@lru_cache(maxsize=4096)
def _remembered(
    owner: Owner, rules: ModelRules, provider_id: str, model_id: str | None
) -> Decision | None:
    against = check_provider(owner, rules, provider_id)
    if against is not None:
        return against
    if model_id is None:
        return None if _allows_all(rules) else _model_denied(owner, rules, None)
    name = f"{provider_id}/{_plain(model_id)}"
    denied_by = next((one for one in rules.deny if _matches(one, name)), None)
    if denied_by is not None:
        return _model_denied(owner, rules, name, denied_by)
    if rules.allow is None or any(_matches(one, name) for one in rules.allow):
        return None
    return _model_denied(owner, rules, name)


@lru_cache(maxsize=1024)
def check_provider(owner: Owner, rules: ModelRules, provider_id: str) -> Decision | None:
    """What the rules have against a provider as a whole: that none of its models may be used."""
    prefix = f"{provider_id}/".lower()
    denied_by = next((one for one in rules.deny if "*" in _rests(_full(one), prefix)), None)
    if denied_by is None and (
        rules.allow is None or any(_rests(_full(one), prefix) for one in rules.allow)
    ):
        return None
    reason = f"{owner_text(owner)} may not use provider {provider_id}"
    return _denied(owner, rules, f"{provider_id}/*", reason, denied_by, rule="provider")


def _model_denied(
    owner: Owner, rules: ModelRules, name: str | None, denied_by: str | None = None
) -> Decision:
    if name is None:
        reason = f"{owner_text(owner)} may not use just any model, and the request names none"
    else:
        reason = f"{owner_text(owner)} may not use {name}"
    return _denied(owner, rules, name, reason, denied_by, rule="model")


def _denied(
    owner: Owner,
    rules: ModelRules,
    name: str | None,
    reason: str,
    denied_by: str | None,
    *,
    rule: Literal["model", "provider"],
) -> Decision:
    """The decision against `name`, a model or all of a provider's; `None` where none is named."""
    allowed = rules.allow
    text = f"ogate: {reason}" if denied_by is None else f"ogate: {reason}: {denied_by} is denied"
    text += "."
    if allowed is not None:
        shown = ", ".join(allowed[:_SHOWN_MAX])
        more = f" and {len(allowed) - _SHOWN_MAX} more" if len(allowed) > _SHOWN_MAX else ""
        text += f" Allowed: {shown}{more}."
    nearest = None if name is None or denied_by is not None else _nearest(name, allowed)
    if nearest is not None:
        text += f" Nearest: {nearest}."
    return Decision(
        rule=rule,
        outcome="shadow" if rules.mode == "shadow" else "deny",
        code=f"{rule}-denied",
        owner=str(owner),
        message=text,
        command=rules_command(owner, _change(rules, name, denied_by)),
    )


def _change(rules: ModelRules, name: str | None, denied_by: str | None) -> str | None:
    """The options that would allow it; `None` where they would be too long to type."""
    if denied_by is not None:
        option, patterns = "deny", [one for one in rules.deny if one != denied_by]
    else:
        option, patterns = "allow", [*(rules.allow or ()), *([] if name is None else [name])]
    if name is None or len(patterns) > _SHOWN_MAX:
        return None
    if not patterns:
        return f"--clear {option}"
    return " ".join(f"--{option} {shlex.quote(pattern)}" for pattern in patterns)


def _allows_all(rules: ModelRules) -> bool:
    return not rules.deny and (rules.allow is None or "*" in rules.allow)


def _plain(model_id: str) -> str:
    return model_id.strip().removeprefix("models/")


def _full(pattern: str) -> str:
    pattern = pattern.strip().lower()
    return pattern if "/" in pattern or pattern == "*" else f"*/{pattern}"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    # What it makes of several `*` never goes back over the text, however long that is.
    return re.compile(fnmatch.translate(_full(pattern).replace("[", "[[]")))


def _matches(pattern: str, name: str) -> bool:
    return _compiled(pattern).match(name.lower()) is not None


def _rests(pattern: str, text: str) -> set[str]:
    """What of a pattern can be left to match after `text`; adjacent `*` count as one."""
    pattern = re.sub(r"\*+", "*", pattern)
    places = _at_stars(pattern, {0})
    for char in text:
        places = _at_stars(
            pattern,
            {
                place if pattern[place] == "*" else place + 1
                for place in places
                if place < len(pattern) and pattern[place] in ("*", "?", char)
            },
        )
    # Nothing left to match is no model's name.
    return {pattern[place:] for place in places if place < len(pattern)}


def _at_stars(pattern: str, places: set[int]) -> set[int]:
    """The places in a pattern and those behind a `*`, which may stand for nothing."""
    return places | {place + 1 for place in places if pattern[place : place + 1] == "*"}


def _nearest(name: str, allowed: Sequence[str] | None) -> str | None:
    """What is allowed and looks most like it, where that is worth a word."""
    if allowed is None or len(allowed) < 2:
        return None
    found = difflib.get_close_matches(name.lower(), [one.lower() for one in allowed], 1, 0.5)
    return next((one for one in allowed if found and one.lower() == found[0]), None)
