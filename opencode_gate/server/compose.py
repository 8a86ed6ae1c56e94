"""The only place where the gateway's objects are wired together."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.prices import PriceBook
from opencode_gate.catalog.token_counter import TokenCounter
from opencode_gate.config.paths import Paths
from opencode_gate.config.proxies import proxy_rules
from opencode_gate.config.settings import Settings
from opencode_gate.config.tls import provider_context
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.local_time import local_zone_name
from opencode_gate.core.secrets import Secret
from opencode_gate.core.usage import TokenUsage
from opencode_gate.gateway.app import App
from opencode_gate.gateway.http_client import HttpUpstream
from opencode_gate.gateway.pipeline import Pipeline
from opencode_gate.gateway.practice import PracticeUpstream
from opencode_gate.governance.budgeting import Budgeting
from opencode_gate.governance.governor import Governor
from opencode_gate.governance.pacing import Pacing
from opencode_gate.governance.prices import PriceRule
from opencode_gate.governance.request_case import Cases
from opencode_gate.governance.reservations import Reservations
from opencode_gate.governance.rulebook import Rulebook
from opencode_gate.governance.runaway import Runaway
from opencode_gate.governance.terms import terms_from
from opencode_gate.ledger.folding_frames import Begin
from opencode_gate.ledger.journal import Journal
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.ledger.recovery import settle_orphans
from opencode_gate.ledger.spend_history import SpendHistory
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.sqlite.governance import open_governance
from opencode_gate.ledger.sqlite.spend_history import usual_spend_per_minute
from opencode_gate.routing.targets import RouteTable
from opencode_gate.server.folding_process import FoldingProcess
from opencode_gate.server.prices import price_book
from opencode_gate.server.protocol import Hello, Secrets
from opencode_gate.server.service import entrance_of
from opencode_gate.server.sharing import rates_of
from opencode_gate.wire.meter import ExchangeMeter


class JournalRecorder:
    """Writes an exchange to the journal first and then hands it on to be folded."""

    __slots__ = ("_folding", "_journal", "exchanges")

    def __init__(self, journal: Journal, folding: FoldingProcess) -> None:
        self._journal = journal
        self._folding = folding
        self.exchanges = 0

    def opened(self, record: ExchangeRecord, *, input_bytes: int | None) -> bool:
        """Before the first byte leaves for the provider; false if it could not be written."""
        return self._journal.opened(record, input_bytes=input_bytes)

    def progressed(self, exchange_id: str, usage: TokenUsage, delivered_text_chars: int) -> None:
        """About once a second while an answer streams."""
        self._journal.progressed(exchange_id, usage, delivered_text_chars)

    def finished(self, record: ExchangeRecord, body: bytes, meter: ExchangeMeter | None) -> None:
        """Once, at the end."""
        self.exchanges += 1
        self._folding.submit(record, self._journal.finished(record), body, meter)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway ready to serve, and what must be closed behind it."""

    app: App
    recorder: JournalRecorder
    journal: Journal
    folding: FoldingProcess
    upstream: HttpUpstream
    rulebook: Rulebook
    reservations: Reservations

    def settle(self) -> None:
        """Folds what is left, returns what is leased, and closes the journal.

        Nothing may be recorded after it.

        Raises:
            LedgerError: not now; the journal keeps it for the next start.
        """
        self.reservations.stop()
        self.rulebook.close()
        self.folding.close()


def compose(hello: Hello, secrets: Secrets, paths: Paths, settings: Settings) -> Gateway:
    """The gateway of one session, or of everybody who has a virtual key."""
    clock = SystemClock()
    prices = price_book(hello.costs, paths, settings)
    journal = Journal.create(paths.journals, session=hello.session)
    folding = FoldingProcess(
        Begin(
            journal_dir=str(paths.journals),
            ledger_file=str(paths.ledger_file),
            process_id=journal.process_id,
            costs=hello.costs,
        ),
        journal,
        on_folded=lambda folded: governor.folded(folded),
    )
    rulebook = Rulebook(lambda: open_governance(paths.ledger_file), zone=local_zone_name())
    reservations = Reservations(
        journal.process_id,
        lambda: open_governance(paths.ledger_file),
        clock=clock,
        recover=folding.recover,
        hurry=folding.hurry,
    )
    history = SpendHistory(lambda: usual_spend_per_minute(paths.ledger_file, clock.now_us()), clock)
    governor = Governor(
        rulebook=rulebook,
        reservations=reservations,
        budgeting=Budgeting(
            reservations, rulebook.standings, Cases(terms_from(prices), clock), clock
        ),
        pacing=Pacing(rates_of(hello), clock),
        runaway=Runaway(settings.runaway, clock, history.usual_nano_usd_per_minute),
        count_text=TokenCounter().count,
        price_rule=PriceRule(prices.knows)
        if settings.pricing.on_unknown_price == "block"
        else None,
        clock=clock,
    )
    recorder = JournalRecorder(journal, folding)
    upstream = HttpUpstream(
        proxies=proxy_rules(os.environ), tls_context=lambda: provider_context(os.environ)
    )
    entrance = entrance_of(hello, secrets, paths, rulebook, journal, folding, clock)
    pipeline = Pipeline(
        door=entrance.door,
        governor=governor,
        key_names=hello.key_names,
        routes=RouteTable(
            replace(row, headers=secrets.headers.get(row.id, row.headers)) for row in hello.rows
        ),
        keys=_keys(secrets),
        upstream=upstream,
        builtin_upstreams={
            row.id: PracticeUpstream() for row in hello.rows if row.source == "builtin"
        },
        recorder=recorder,
        clock=clock,
    )
    app = App(pipeline, entrance.control, names=entrance.names)
    return Gateway(app, recorder, journal, folding, upstream, rulebook, reservations)


def settle_dead(paths: Paths, settings: Settings) -> int:
    """Folds the journals of gateway processes that died; returns how many exchanges they held."""
    prices = PriceBook(open_catalogue(paths, settings), settings)
    store = open_store(paths.ledger_file)
    try:
        return settle_orphans(paths.journals, store, prices.price)
    finally:
        store.close()


def end_for_launcher(hello: Hello, paths: Paths) -> None:
    """Does what a launcher that was killed no longer does: ends its session, clears its folder."""
    shutil.rmtree(hello.run_folder, ignore_errors=True)
    store = open_store(paths.ledger_file)
    try:
        store.add_session(hello.session)
        store.end_session(hello.session.id, ended_at_us=SystemClock().now_us(), exit_status=None)
    finally:
        store.close()


def _keys(secrets: Secrets) -> Mapping[str, Secret | CredentialError]:
    keys: dict[str, Secret | CredentialError] = {
        provider_id: Secret(key) for provider_id, key in secrets.keys.items()
    }
    for provider_id, problem in secrets.problems.items():
        keys[provider_id] = UnreadableKey(
            "missing-credential", problem, hint=f"ogate keys test {provider_id}"
        )
    return keys


class UnreadableKey(CredentialError):
    """A key that exists and could not be read when the session began."""

    http_status = 401
    error_type = "authentication_error"
