"""The one family of errors a user is meant to read.

The idea: an error has a code that the documentation lists, a sentence that says what happened,
details that say where `ogate` looked, and a hint that says what to do next. A class exists
only where a caller decides differently (the exit status, the HTTP status). Anything that is
not a `GateError` is a bug.
"""

from collections.abc import Sequence
from typing import ClassVar

CODES: dict[str, str] = {
    "usage": "The command line does not make sense.",
    "bad-config": "A configuration file cannot be read or has a wrong key or value.",
    "no-terminal": "A choice is missing and there is no terminal to ask on.",
    "unknown-provider": "No provider of that name is known.",
    "unsupported-provider": "The provider cannot pass through the gateway, or lacks its address.",
    "unanswered-sign-in": "Opencode is signed in to a provider that has a key too: which to use?",
    "unknown-model": "The provider has no model of that name.",
    "missing-credential": "No key for the provider was found anywhere ogate looks.",
    "no-keyring": "This machine has no usable OS keyring.",
    "keyring-locked": "The OS keyring is locked and nobody can be asked to unlock it.",
    "bad-credential": "The key does not have the shape of a key, or the provider refused it.",
    "no-such-key": "The provider has no stored key of that name.",
    "key-exists": "The provider already has a stored key of that name.",
    "credentials-unreadable": "The list of keys or the encrypted file cannot be read.",
    "gateway-failed": "The gateway process could not start or did not stay up.",
    "ledger-corrupt": "The ledger database is damaged.",
    "ledger-newer": "The ledger was written by a newer ogate.",
    "ledger-missing": "There is no ledger yet: no session has run.",
    "ledger-unwritable": "The ledger cannot be opened for writing.",
    "agent-missing": "Opencode is not installed.",
    "agent-unusable": "Opencode was found but cannot be executed or is not supported.",
    "folder-unwritable": "A folder ogate needs cannot be written.",
    "unauthorized": "The request carries no valid launch token.",
    "no-route": "The path belongs to no routed provider.",
    "unknown-price": "The model has no known price, and the settings refuse such models.",
    "bad-body": "The request body is not understood.",
    "request-loop": "The same question came back too often within seconds.",
    "unknown-virtual-key": "The request carries no virtual key of this gateway, or a wrong one.",
    "virtual-key-disabled": "The virtual key is switched off.",
    "virtual-key-expired": "The virtual key has expired.",
    "provider-denied": "A rule does not allow the provider.",
    "model-denied": "A rule does not allow the model.",
    "operation-denied": "Under a hard budget only what can be metered is let through.",
    "rate-limited": "A rate limit is reached.",
    "budget-exceeded": "A budget is spent, or what is left of it is too little for the request.",
    "budget-held": "What is left of a budget is reserved by requests that still run.",
    "runaway": "The agent repeats itself, or spends far faster than usual.",
    "policy-unreadable": "The rules cannot be read, so every request is refused.",
    "ledger-locked": "The ledger cannot be asked, so requests under a budget are refused.",
    "bad-policy": "A policy file or a rule in it does not make sense.",
    "no-such-owner": "There is no virtual key, team, customer or budget of that name.",
    "owner-exists": "There is a virtual key, team or customer of that name already.",
    "still-in-use": "Others still belong to what was to be removed.",
    "way-round": "Under a hard rule, something would not pass the gateway.",
    "insecure-address": "Plain HTTP on an address others can reach needs to be asked for.",
    "gateway-unreachable": "The gateway of the team could not be reached, or is none.",
    "upstream-unreachable": "The provider could not be reached.",
    "upstream-timeout": "The provider did not answer in time.",
    "upstream-protocol": "The provider's answer is not what the request asked for.",
    "no-such-session": "No session of that id is in the ledger.",
    "no-such-call": "No model call of that id is in the ledger.",
    "session-running": "A session is running, and what was asked for has to wait for its end.",
    "foreign-files": "A folder that ogate is to remove holds files that are not its own.",
}
"""Every code an error can carry, and what it means; the reference page is made from this table."""


class GateError(Exception):
    """What a user is told, with what to do next."""

    exit_code: ClassVar[int] = 125
    http_status: ClassVar[int] = 500
    error_type: ClassVar[str] = "gateway_error"

    def __init__(
        self, code: str, message: str, *, hint: str | None = None, details: Sequence[str] = ()
    ) -> None:
        if code not in CODES:
            raise ValueError(f"error code {code!r} is not in core.errors.CODES")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = tuple(details)


class CheckFailed(GateError):
    """A check the user asked for did not pass."""

    exit_code = 1


class UsageError(GateError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(GateError):
    """A configuration file or value is wrong."""

    exit_code = 3


class CredentialError(GateError):
    """A key is missing, wrong, or cannot be reached."""

    exit_code = 4


class GatewayError(GateError):
    """The gateway process did not start or stay up."""

    exit_code = 5


class LedgerError(GateError):
    """The ledger cannot be used."""

    exit_code = 6


class PolicyDenied(GateError):
    """A rule says no. `http_status` is set per denial."""

    exit_code = 7
    http_status = 403
    error_type = "permission_error"


class UpstreamError(GateError):
    """A provider could not be reached or answered nonsense."""

    exit_code = 8
    http_status = 502
    error_type = "upstream_error"


class AgentMissing(GateError):
    """The coding agent is not installed."""

    exit_code = 127


class AgentUnusable(GateError):
    """The coding agent cannot be executed, or its version is refused."""

    exit_code = 126
