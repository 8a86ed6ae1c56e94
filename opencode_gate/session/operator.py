"""Who sits at this machine: the name sessions, budgets of a user and the audit trail go by."""

import getpass


def os_user() -> str:
    """The name of the operating system's user; `unknown` where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        # A container may run under a number that has no name.
        return "unknown"
