"""Who sits at this machine: the name sessions, budgets of a user and the audit trail go by.

The invariant: where the system knows it, no variable of the environment says otherwise.
"""

import getpass
import os


def os_user() -> str:
    """The name of the operating system's user; `unknown` where it has none."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        # Windows, or a container that runs under a number that has no name.
        pass
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
