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


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "It worked.",
    ExitCode.CHECK_FAILED: "A check found something (`doctor`, `keys test`, `ledger check`, "
    "`audit verify`).",
    ExitCode.USAGE: "The command line does not make sense, or names something that does not exist.",
    ExitCode.CONFIGURATION: "`config.toml` is wrong, or a folder cannot be written.",
    ExitCode.CREDENTIAL: "A key is missing or wrong, or the keyring cannot be reached.",
    ExitCode.GATEWAY: "The gateway could not start or did not stay up.",
    ExitCode.LEDGER: "The ledger is damaged, of a newer version, or cannot be written.",
    ExitCode.DENIED: "A rule says no.",
    ExitCode.UPSTREAM: "A provider could not be reached or answered nonsense.",
    ExitCode.BUG: "A bug in ogate; `--debug` shows where.",
    ExitCode.RUN_FAILED: "`ogate run`: Opencode was not started, for any reason not named here.",
    ExitCode.AGENT_UNUSABLE: "`ogate run`: Opencode cannot be executed or is not supported.",
    ExitCode.AGENT_MISSING: "`ogate run`: Opencode is not installed.",
    ExitCode.INTERRUPTED: "Ctrl-C.",
    ExitCode.BROKEN_PIPE: "The program that read the output went away (`ogate usage | head -1`).",
}
"""What each status means; the reference page is made from this table."""
