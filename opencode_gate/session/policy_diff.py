"""What would become other between two policies, line by line, in the words of a policy file.

The invariant: an owner that is not named here keeps its rules.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from opencode_gate.governance.policy import Owner, Policy
from opencode_gate.session.policy_changes import differences
from opencode_gate.session.policy_file import FILE_KINDS
from opencode_gate.session.policy_sense import owned
from opencode_gate.session.policy_writing import owner_text

Change = Literal["added", "changed", "removed"]


class OwnerChange(NamedTuple):
    """What becomes of one owner; `lines` begin with `+ `, `- ` or two spaces."""

    owner: Owner
    change: Change
    lines: tuple[str, ...]


def policy_diff(
    before: Policy, after: Policy, *, unreadable: Sequence[Owner] = ()
) -> tuple[OwnerChange, ...]:
    """The owners that become other, customers first; those that cannot be read are removed."""
    changes = differences(before, after)
    found = [
        OwnerChange(owner, "removed", ("- rules that cannot be read",))
        for owner in unreadable
        if owner not in changes
    ]
    for kind in FILE_KINDS:
        for owner, rules in changes.items():
            if owner.kind != kind:
                continue
            former = owned(before, kind).get(owner.name)
            old = [] if former is None else owner_text(owner, former).splitlines()
            new = [] if rules is None else owner_text(owner, rules).splitlines()
            change: Change = "changed"
            if former is None:
                change = "added"
            elif rules is None:
                change = "removed"
            found.append(OwnerChange(owner, change, tuple(_lines(old, new))))
    return tuple(found)


def _lines(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for line in difflib.ndiff(old, new):
        # Those with a question mark only point at characters.
        if not line.startswith("?"):
            yield line.rstrip()
