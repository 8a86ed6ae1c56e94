"""A policy file from the disk, and what is between it and the rules in force.

The invariant: nothing is written; rules that cannot be read do not keep a file from being read.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from opencode_gate.config.paths import paths
from opencode_gate.core.errors import ConfigError
from opencode_gate.governance.policy import Policy
from opencode_gate.session.policy_changes import open_rules, readable_policy
from opencode_gate.session.policy_diff import OwnerChange, policy_diff
from opencode_gate.session.policy_file import parse_policy

STDIN = "-"


class Compared(NamedTuple):
    """The rules of a file, those in force as far as they can be read, and the difference."""

    wanted: Policy
    before: Policy
    changes: tuple[OwnerChange, ...]


def compared(file: Path, *, at_us: int) -> Compared:
    """Reads a policy file; `-` is stdin. A rolling budget that is new begins at `at_us`.

    Raises:
        ConfigError: `bad-policy`, the file cannot be read or makes no sense.
        LedgerError: the ledger cannot be read.
    """
    text = text_of(file)
    with open_rules(paths(), read_only=True) as store:
        before, unreadable = readable_policy(store)
    source = "stdin" if str(file) == STDIN else str(file)
    wanted = parse_policy(text, source=source, at_us=at_us, former=before)
    return Compared(wanted, before, policy_diff(before, wanted, unreadable=unreadable))


def text_of(file: Path) -> str:
    """The text of a policy file.

    Raises:
        ConfigError: `bad-policy`, it cannot be read.
    """
    if str(file) == STDIN:
        return sys.stdin.read()
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            "bad-policy", f"there is no file {file}", hint=f"ogate policy export {file} makes one"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("bad-policy", f"{file} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError("bad-policy", f"cannot read {file}: {error.strerror}") from error
