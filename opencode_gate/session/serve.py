"""`ogate serve`: one gateway for many, from its address to its end.

The launcher of a session and this are two lives of the same gateway process. This one listens
where it is told, has no agent, and lets answers in flight end when it is stopped. The invariant:
plain HTTP is never spoken on an address that others can reach unless that was asked for.
"""

import queue
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from opencode_gate.agents.opencode.environment import hidden_variables
from opencode_gate.agents.opencode.jsonc import JsonObject
from opencode_gate.catalog.provider_facts import secret_variables
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.paths import Paths, private_folder
from opencode_gate.config.settings import Settings
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import UsageError
from opencode_gate.core.ids import new_ulid
from opencode_gate.core.local_time import local_zone_name
from opencode_gate.credentials.resolve import CredentialSource
from opencode_gate.ledger.records import SessionRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.server.protocol import Hello, Secrets, Service
from opencode_gate.session.discovery import Discovery, UsableProvider
from opencode_gate.session.gateway_process import Served
from opencode_gate.session.launch import KeysRead
from opencode_gate.session.operator import os_user
from opencode_gate.session.project import text_of
from opencode_gate.session.serve_listening import is_loopback
from opencode_gate.session.serve_workers import Workers
from opencode_gate.session.told_models import stated_costs, told_models, used_without_key

AGENT = "serve"
"""What stands in the ledger where a session names its agent."""

WORKERS_MAX = 64
"""More than any machine needs for those that one ledger is made for."""

_STOPS = ("SIGTERM", "SIGINT", "SIGHUP")


class ServeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for.

    Attributes:
        host: the address, or a name of it, to listen on.
        names: host names that clients may use beside every address.
        is_insecure: plain HTTP is meant, also where others can reach it.
        workers: how many gateway processes share the address.
    """

    host: str = "127.0.0.1"
    port: int = 4141
    tls_cert: Path | None = None
    tls_key: Path | None = None
    names: tuple[str, ...] = ()
    is_insecure: bool = False
    grace_s: float = 30.0
    workers: int = 1


class ServePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One life of a served gateway; `sources`, `key_names` as in a session's plan."""

    session: SessionRecord
    rows: tuple[ProviderRow, ...]
    sources: Mapping[str, CredentialSource]
    key_names: Mapping[str, str]
    costs: Mapping[str, Mapping[str, JsonObject]]
    key_variables: tuple[str, ...]
    service: Service


def plan_service(
    request: ServeRequest, discovery: Discovery, settings: Settings, environ: Mapping[str, str]
) -> ServePlan:
    """All that is usable here, served.

    Raises:
        UsageError: others could read what is said, or the files for TLS do not fit together.
    """
    _require_secure(request)
    usable = {
        # Whose Opencode configuration is not this one's has to be told of all of its models.
        provider_id: replace(found, is_new_to_agent=found.models is not None)
        for provider_id, found in discovery.usable.items()
    }
    sources = {provider_id: found.source for provider_id, found in usable.items()}
    return ServePlan(
        session=SessionRecord(
            id=new_ulid(),
            user=os_user(),
            agent=AGENT,
            agent_version=None,
            directory=text_of(Path.cwd()),
            project=f"{request.host}:{request.port}",
            time_zone=local_zone_name(),
            started_at_us=SystemClock().now_us(),
        ),
        rows=tuple(found.row for found in usable.values()),
        sources=sources,
        key_names={
            provider_id: source.key_name
            for provider_id, source in sources.items()
            if source.key_name is not None
        },
        costs=stated_costs(usable),
        key_variables=_key_variables(usable, discovery, environ),
        service=Service(
            names=_names(request),
            tls_cert=None if request.tls_cert is None else str(request.tls_cert.absolute()),
            tls_key=None if request.tls_key is None else str(request.tls_key.absolute()),
            grace_s=request.grace_s,
            models=told_models(usable, discovery, settings),
            without_key=used_without_key(usable),
            workers=request.workers,
        ),
    )


def serve(
    plan: ServePlan,
    listeners: Sequence[socket.socket],
    paths: Paths,
    read_keys: Callable[[], KeysRead],
    on_ready: Callable[[KeysRead], object],
    on_stop: Callable[[], object],
) -> None:
    """Serves until a signal says stop; a second one does not wait for answers in flight.

    Args:
        listeners: one for each gateway process.
        on_stop: called at the first, before it waits for them.

    Raises:
        GatewayError: a gateway did not start or did not stay up; then all have been ended.
        LedgerError: the ledger cannot be used.
    """
    store = open_store(paths.ledger_file)
    store.add_session(plan.session)
    store.close()
    run_folder = private_folder(paths.runtime / plan.session.id)
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    try:
        with _stops_told(events):
            workers = Workers(_served(plan, run_folder), listeners)
            workers.on_failure(lambda: events.put("failed"))
            keys = read_keys()
            workers.on_ready(lambda: on_ready(keys))
            workers.give_secrets(
                Secrets(
                    launch_token="", keys=keys.keys, problems=keys.problems, headers=keys.headers
                )
            )
            if events.get() == "stop":
                on_stop()
            _finish(workers, events, grace_s=plan.service.grace_s)
    finally:
        shutil.rmtree(run_folder, ignore_errors=True)
        store = open_store(paths.ledger_file)
        store.end_session(plan.session.id, ended_at_us=SystemClock().now_us(), exit_status=0)
        store.close()
    failure = workers.failure
    if failure is not None:
        raise failure


def _finish(workers: Workers, events: "queue.SimpleQueue[str]", *, grace_s: float) -> None:
    def drain() -> None:
        workers.finish(grace_s=grace_s)
        events.put("ended")

    # In a thread, so that this one can hear the second signal.
    draining = threading.Thread(target=drain, name="drain")
    draining.start()
    while (event := events.get()) != "ended":
        if event == "stop":
            workers.hurry()
    draining.join()


@contextmanager
def _stops_told(events: "queue.SimpleQueue[str]") -> Iterator[None]:
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    # What is ignored from the outset stays ignored: `nohup` asks for that.
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, lambda *_: events.put("stop")) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _require_secure(request: ServeRequest) -> None:
    if (request.tls_cert is None) != (request.tls_key is None):
        raise UsageError(
            "usage",
            "a certificate needs its key, and a key its certificate",
            hint="--tls-cert FILE --tls-key FILE",
        )
    if request.tls_cert is None and not request.is_insecure and not is_loopback(request.host):
        raise UsageError(
            "insecure-address",
            f"{request.host} can be reached by others, and plain HTTP shows them keys and prompts",
            hint="--tls-cert FILE --tls-key FILE, or --insecure behind a proxy that speaks TLS",
        )


def _names(request: ServeRequest) -> tuple[str, ...]:
    """What clients may call this machine: what was said, its own name, the certificate's."""
    own = (request.host, socket.gethostname())
    certified = () if request.tls_cert is None else _certified_names(request.tls_cert)
    return tuple(dict.fromkeys((*request.names, *certified, *own)))


def _certified_names(file: Path) -> tuple[str, ...]:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except OSError as error:
        problem = f"{file} cannot be read: {error.strerror}"
        raise UsageError("usage", problem, hint="--tls-cert takes a PEM file") from error
    except ValueError as error:
        problem = f"{file} is no certificate: {error}"
        raise UsageError("usage", problem, hint="--tls-cert takes a PEM file") from error
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(x509.DNSName))


def _served(plan: ServePlan, run_folder: Path) -> list[Served]:
    """What each gateway process is told: the same, and which of them it is."""

    def served(service: Service) -> Served:
        def hello(socket: str) -> Hello:
            return Hello(
                session=plan.session,
                socket=socket,
                run_folder=str(run_folder),
                rows=plan.rows,
                key_names=dict(plan.key_names),
                costs={provider_id: dict(costs) for provider_id, costs in plan.costs.items()},
                served=service,
            )

        return Served(hello=hello, log_file=None, key_variables=plan.key_variables)

    return [served(replace(plan.service, worker=number)) for number in range(plan.service.workers)]


def _key_variables(
    usable: Mapping[str, UsableProvider], discovery: Discovery, environ: Mapping[str, str]
) -> tuple[str, ...]:
    names = [name for found in usable.values() for name in found.row.secret_env]
    for provider_id, found in usable.items():
        names += discovery.user_config.key_variables.get(provider_id, ())
        if found.source.variable is not None:
            names.append(found.source.variable)
    return hidden_variables(environ, secret_variables(tuple(names)))


def virtual_key_count(paths: Paths) -> int:
    """How many virtual keys there are to let people in with.

    Raises:
        LedgerError: the rules cannot be read.
    """
    governance = open_governance(paths.ledger_file)
    try:
        return sum(document.kind == "vkey" for document in governance.policy()[1])
    finally:
        governance.close()
