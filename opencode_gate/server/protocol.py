"""What a launcher and its gateway process say to each other: one JSON object a line.

Down the gateway's stdin go `hello` (what to serve), `secrets` (token and keys), `agent` (whom to
end when the launcher dies) and `finish`, which may come again to hurry. Up its stdout come
`ready`, `failed` and `settled`. The invariant: secrets travel in `secrets` alone, and that line
is written nowhere else.
"""

import json
from typing import Any

import msgspec

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.ledger.records import SessionRecord


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway that serves many people has beyond one that serves a session.

    Attributes:
        names: host names it goes by, beside every address.
        tls_cert: the file of its certificate chain, `tls_key` that of its key; `None`: plain HTTP.
        grace_s: how long answers may go on when it is told to end.
        models: by provider, the models Opencode does not know, as its configuration has them.
        without_key: providers that are used without any key.
        workers: how many gateway processes share the address, the run folder and the session.
        worker: which of them this one is, from 0; its successor is the same.
    """

    names: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    grace_s: float = 30.0
    models: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    without_key: tuple[str, ...] = ()
    workers: int = 1
    worker: int = 0


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway serves: one session, or with `served` everybody who has a virtual key.

    Attributes:
        session: as it goes into the ledger, should the launcher not be there to write its end.
        socket: the listening socket, as `socket_handoff` packs it.
        rows: the routed providers, and only those.
        key_names: by provider, the name of the key in use, where it has one.
        costs: by provider and model, the prices that the agent's own configuration states, in
            the shape of models.dev.
        run_folder: removed by the gateway if the launcher dies first.
        virtual_key: the name of the key the session runs under, if it does.
        served: `None` for a gateway of one session.
    """

    session: SessionRecord
    socket: str
    run_folder: str
    rows: tuple[ProviderRow, ...]
    key_names: dict[str, str] = msgspec.field(default_factory=dict)
    costs: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    virtual_key: str | None = None
    served: Service | None = None


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """The launch token, keys by provider id, and for those that could not be read the reason.

    Attributes:
        headers: by provider id, its extra headers with the variables in them filled in.
    """

    launch_token: str
    keys: dict[str, str]
    problems: dict[str, str] = msgspec.field(default_factory=dict)
    headers: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Secrets(providers={sorted(self.keys)})"


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's process; the start time tells it from a later one with the same number."""

    pid: int
    started: str | None


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """Settle and go; answers that still stream get `grace_s`. A second one may shorten that."""

    grace_s: float = 0.0


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway accepts requests."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway cannot serve; its last words, and what to do about it."""

    message: str
    hint: str | None = None


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """Everything recorded is in the ledger; not `is_whole` if the disk refused the journal."""

    exchanges: int
    is_whole: bool = True


_KINDS: dict[str, type[Any]] = {
    "hello": Hello,
    "secrets": Secrets,
    "agent": Agent,
    "finish": Finish,
    "ready": Ready,
    "failed": Failed,
    "settled": Settled,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def packed(message: Any) -> bytes:
    """One line for a message."""
    fields: dict[str, Any] = msgspec.structs.asdict(message)
    return msgspec.json.encode({"type": _NAMES[type(message)], **fields}) + b"\n"


def unpacked(line: bytes) -> Any:
    """The message of one line.

    Raises:
        ValueError: the line is no message of this protocol.
    """
    fields = json.loads(line)
    try:
        kind = _KINDS[fields.pop("type")]
        if kind is Hello:
            fields["session"] = SessionRecord(**fields["session"])
            fields["rows"] = tuple(provider_row(row) for row in fields["rows"])
            if fields.get("served") is not None:
                fields["served"] = Service(**_with_tuples(fields["served"]))
        return kind(**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a message of this protocol") from error


def provider_row(fields: dict[str, Any]) -> ProviderRow:
    """The row that JSON made a dictionary of."""
    return ProviderRow(**_with_tuples(fields))


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
