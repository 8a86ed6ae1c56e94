"""What `ogate` tells the shell when it ends.

`ogate run` returns Opencode's own status once Opencode runs; these are for everything else.
"""

from enum import IntEnum, unique


@unique
class ExitCode(IntEnum):
    """Exit statuses, unique and documented."""

    OK = 0
    CHECK_FAILED = 1
    USAGE = 2
    CONFIGURATION = 3
    CREDENTIAL = 4
    GATEWAY = 5
    LEDGER = 6
    DENIED = 7
    UPSTREAM = 8
    BUG = 70
    RUN_FAILED = 125
    AGENT_UNUSABLE = 126
    AGENT_MISSING = 127
    INTERRUPTED = 130
    BROKEN_PIPE = 141
