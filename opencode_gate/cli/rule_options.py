"""Options about rules and their owners, declared once, and what they come to.

The invariant: an option that was not given changes nothing; a value that makes no sense is
refused with one that would.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.core.errors import UsageError

if TYPE_CHECKING:
    from opencode_gate.governance.policy import Owner, OwnerKind, RateLimit, Rules

Vkey = Annotated[str | None, typer.Option("--vkey", metavar="NAME", help="Of this virtual key.")]
Team = Annotated[str | None, typer.Option("--team", metavar="NAME", help="Of this team.")]
Customer = Annotated[
    str | None, typer.Option("--customer", metavar="NAME", help="Of this customer.")
]
User = Annotated[
    str | None, typer.Option("--user", metavar="NAME", help="Of this user of this machine.")
]
SessionOf = Annotated[str | None, typer.Option("--session", metavar="ID", help="Of this session.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Models it may use: anthropic/*; repeatable."),
]
Deny = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Models it may not, whatever allows them; repeatable."),
]
Rpm = Annotated[str | None, typer.Option(metavar="N", help="Requests per minute.")]
Tpm = Annotated[str | None, typer.Option(metavar="N", help="Tokens per minute: 200k.")]
Concurrent = Annotated[str | None, typer.Option(metavar="N", help="Requests at the same time.")]
Zone = Annotated[
    str | None,
    typer.Option("--time-zone", metavar="ZONE", help="Whose calendar its budgets follow."),
]
Clear = Annotated[
    list[str] | None,
    typer.Option(metavar="OPTION", help="Take back what an option set, such as allow; repeatable."),
]

CLEARABLE = ("allow", "deny", "rpm", "tpm", "concurrent", "time-zone")


def owner_of(given: "dict[OwnerKind, str | None]") -> "Owner | None":
    """The one owner that options name, `None` where none does.

    Raises:
        UsageError: there are several, or one cannot be called so.
    """
    from opencode_gate.governance.policy import Owner
    from opencode_gate.session.policy_names import checked_name

    said = [(kind, name) for kind, name in given.items() if name is not None]
    if len(said) > 1:
        options = " and ".join(f"--{kind}" for kind, _ in said)
        raise UsageError("usage", f"{options} exclude each other: a budget has one owner")
    if not said:
        return None
    kind, name = said[0]
    return Owner(kind, checked_name(kind, name))


def pattern_notes(rules: "Rules") -> list[str]:
    """What to say of patterns that may not mean what they seem to."""
    models = rules.models
    patterns = () if models is None else (*(models.allow or ()), *models.deny)
    return [
        f"{pattern} is a model of just that name; '*{pattern}*' is each with it in its name"
        for pattern in patterns
        if not set(pattern) & set("*?/")
    ]


def ruled(
    rules: "Rules",
    *,
    allow: Sequence[str] | None,
    deny: Sequence[str] | None,
    rpm: str | None,
    tpm: str | None,
    concurrent: str | None,
    time_zone: str | None,
    clear: Sequence[str] = (),
) -> "Rules":
    """The rules as options change them.

    Raises:
        UsageError: an option makes no sense.
    """
    import msgspec

    from opencode_gate.governance.policy import ModelRules

    was = rules.models or ModelRules()
    if allow and clear and "allow" in clear:
        raise UsageError("usage", "--allow and --clear allow contradict each other")
    kept_allow = None if "allow" in clear else was.allow
    models = ModelRules(
        allow=tuple(allow) if allow else kept_allow,
        deny=tuple(deny) if deny else () if "deny" in clear else was.deny,
        mode=was.mode,
    )
    limits = list(rules.limits)
    for option, text in (("rpm", rpm), ("tpm", tpm), ("concurrent", concurrent)):
        if text is not None:
            limits = _replaced(limits, _limit(option, _count(option, text)), is_kept=True)
        elif option in clear:
            limits = _replaced(limits, _limit(option, 1), is_kept=False)
    zone = None if "time-zone" in clear else rules.time_zone
    return msgspec.structs.replace(
        rules,
        models=None if models == ModelRules(mode=was.mode) else models,
        limits=tuple(limits),
        time_zone=zone if time_zone is None else time_zone,
    )


def cleared(clear: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The options that are to be taken back.

    Raises:
        UsageError: one is none that can be.
    """
    from opencode_gate.config.toml_shape import nearest

    for name in clear or ():
        if name.removeprefix("--") not in known:
            close = nearest(name.removeprefix("--"), known)
            raise UsageError(
                "usage",
                f"--clear {name}: no option of that name can be taken back",
                hint=f"--clear {close[0]}" if close else f"one of {', '.join(known)}",
            )
    return tuple(name.removeprefix("--") for name in clear or ())


def _count(option: str, text: str) -> int:
    from opencode_gate.session.amounts import token_amount

    try:
        count = token_amount(text)
    except UsageError as error:
        raise UsageError(
            "usage", f"--{option} {text!r} is not a number", hint=f"--{option} 60"
        ) from error
    if count < 1:
        raise UsageError("usage", f"--{option} is 1 or more", hint=f"--clear {option} lifts it")
    return count


def _limit(option: str, count: int) -> "RateLimit":
    from opencode_gate.governance.policy import RateLimit

    if option == "concurrent":
        return RateLimit(concurrent=count)
    if option == "rpm":
        return RateLimit(requests=count, per="minute")
    return RateLimit(tokens=count, per="minute")


def _replaced(limits: "list[RateLimit]", new: "RateLimit", *, is_kept: bool) -> "list[RateLimit]":
    """The limits with `new`, or nothing, in the place of the one that counts the same."""
    import msgspec

    found = []
    is_placed = not is_kept
    for limit in limits:
        if (limit.measure, limit.per) != (new.measure, new.per):
            found.append(limit)
        elif is_kept:
            found.append(msgspec.structs.replace(new, mode=limit.mode))
            is_placed = True
    return found if is_placed else [*found, new]
