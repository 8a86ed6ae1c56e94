"""What virtual keys, teams and customers may be called.

A name stands in files, headers, budgets' ids and other people's shells, so it has nothing in it
that any of them would read as more than a name. The invariant: a name that got in here is the
same everywhere, also where two people type the same accent in different ways.
"""

import unicodedata

from opencode_gate.core.errors import UsageError
from opencode_gate.governance.policy import OwnerKind

LONGEST = 64
NOUNS: dict[OwnerKind, str] = {
    "session": "session",
    "user": "user",
    "vkey": "virtual key",
    "team": "team",
    "customer": "customer",
}
"""What a kind of owner is called in a sentence."""

GROUPS: dict[OwnerKind, str] = {
    "vkey": "vkeys",
    "team": "teams",
    "customer": "customers",
    "user": "users",
}
"""The command of a kind, and its table in a policy file."""

_PUNCTUATION = "._-@"


def normal(name: str) -> str:
    """A name in the one form it is kept in (NFC, https://unicode.org/reports/tr15/)."""
    return unicodedata.normalize("NFC", name)


def name_problem(kind: OwnerKind, name: str) -> str | None:
    """What is wrong with a name, `None` for nothing.

    Users are called what the operating system calls them; of their names only what no terminal
    and no file could show is refused.
    """
    if not 1 <= len(name) <= LONGEST:
        return f"has {len(name)} characters, a name has 1 to {LONGEST}"
    if name != normal(name):
        return "is written with characters that are put together from parts"
    if kind in ("user", "session"):
        bad = next((c for c in name if not c.isprintable()), None)
        return None if bad is None else f"has the character {bad!r}, which cannot be shown"
    bad = next((c for c in name if not (c.isalnum() or c in _PUNCTUATION)), None)
    if bad is not None:
        return f"has the character {bad!r}; a name has letters, digits and . _ - @"
    return None if name[0].isalnum() else "begins with neither a letter nor a digit"


def checked_name(kind: OwnerKind, name: str) -> str:
    """The name in its one form.

    Raises:
        UsageError: it may not be called so.
    """
    found = normal(name)
    problem = name_problem(kind, found)
    if problem is not None:
        raise UsageError(
            "usage",
            f"{name!r} cannot be the name of a {NOUNS[kind]}: it {problem}",
            hint="letters, digits and . _ - @, up to 64 of them, a letter or digit first",
        )
    return found
