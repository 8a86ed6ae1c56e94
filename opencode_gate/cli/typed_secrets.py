"""Secrets that were typed where everybody can read them.

The idea: a command line is in the shell's history and in the list of processes already; what ogate
can still do is to say so. The invariant: nothing here repeats the secret.
"""

import re
from collections.abc import Iterable

from opencode_gate.core.errors import UsageError

_SECRET_HEADER = re.compile(r"auth|key|token|secret", re.IGNORECASE)


def refuse_key(words: Iterable[str]) -> None:
    """Refuses the words behind `ogate keys` if one of them is a key.

    Raises:
        UsageError: one is.
    """
    from opencode_gate.credentials.shape import is_plainly_a_key

    if any(is_plainly_a_key(word.rpartition("=")[2]) for word in words):
        raise key_on_the_line()


def key_on_the_line() -> UsageError:
    """What to say to somebody who typed a key, or may have."""
    return UsageError(
        "usage",
        "a key is never given on the command line, where other programs can read it",
        details=("if that was one, make a new one at the provider: it is in your shell's history",),
        hint="ogate keys add PROVIDER asks for it; --stdin and --from-env VAR are for scripts",
    )


def refuse_in_header(name: str, value: str) -> None:
    """Refuses a header's value that would lie in `config.toml` in the clear.

    Raises:
        UsageError: it looks like a secret.
    """
    if _SECRET_HEADER.search(name) and "{env:" not in value:
        raise UsageError(
            "usage",
            f"the value of {name} looks like a secret, and config.toml holds none",
            hint="export it as a variable, and write '{env:MY_VARIABLE}' in its place",
        )
