"""`ogate sessions`: the runs of Opencode, one summary each, and their rows for other programs.

The invariant: it only reads the ledger, and `show` says what the end of the session said.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from opencode_gate.cli import figures, render
from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Block, Column, Result, Table, Text
from opencode_gate.core.errors import ConfigError, UsageError
from opencode_gate.core.semconv import ConversationKind

if TYPE_CHECKING:
    from opencode_gate.catalog.rows import ModelPrice
    from opencode_gate.cli.session_view import SessionDetail
    from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
    from opencode_gate.ledger.sqlite import SqliteStore
    from opencode_gate.ledger.totals import Totals
    from opencode_gate.session.reconciliation import Reconciliation
    from opencode_gate.session.summary import ConversationTotals

app = typer.Typer()

Session = Annotated[
    str, typer.Argument(metavar="SESSION", help="Its id, the beginning of it, or `last`.")
]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Started on this day or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="Started on this day or earlier.")
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """The latest sessions, with what they cost."""
    from opencode_gate.cli.summary_view import session_document, totals_document
    from opencode_gate.cli.windows import window_between
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.core.local_time import local_zone_name

    now_us = SystemClock().now_us()
    window = window_between(since, until, now_us=now_us, time_zone=local_zone_name())
    with _ledger() as store:
        sessions = store.sessions(limit=limit, since_us=window.since_us, until_us=window.until_us)
        rows = _with_totals(store, sessions)
    return Result(
        data={
            "sessions": [
                {**session_document(session), "totals": totals_document(total)}
                for session, total in rows
            ]
        },
        blocks=() if as_json else [_table(rows)] if rows else [Text("no sessions yet")],
    )


@app.command()
def show(
    session: Session = "last",
    cache: Annotated[
        bool,
        typer.Option("--cache", help="What came from the prompt cache, and where it fell out."),
    ] = False,
    reconcile: Annotated[
        bool,
        typer.Option("--reconcile", help="Beside Opencode's own count, with every difference."),
    ] = False,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="What the same tokens would have cost on provider/model; several with commas.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> Result:
    """The summary of a session again, with its conversations, prompts and modes."""
    if sum(map(bool, (cache, reconcile, what_if))) > 1:
        raise UsageError("usage", "only one of --cache, --reconcile and --what-if at a time")
    if cache:
        return _cache(session, as_json=as_json)
    if reconcile:
        return _reconciled(session, as_json=as_json)
    if what_if:
        return _compared(session, what_if, as_json=as_json)
    return _summary(session, as_json=as_json)


def _summary(session: str, *, as_json: bool) -> Result:
    """The summary, and what the session is made of."""
    from opencode_gate.cli.session_view import detail_blocks, detail_document
    from opencode_gate.cli.summary_view import summary_blocks, summary_document
    from opencode_gate.config.paths import paths
    from opencode_gate.core.clock import SystemClock
    from opencode_gate.session.check_line import check_line
    from opencode_gate.session.standing import standings_of_session
    from opencode_gate.session.summary import summarise

    with _ledger() as store:
        record = store.session(session)
        found = _reconciliation(store, record.id)
        summary = summarise(
            store,
            record.id,
            bypass=() if found is None else found.bypasses,
            check=None if found is None else check_line(found),
            budgets=standings_of_session(
                paths().ledger_file,
                record,
                store.exchanges(record.id),
                now_us=SystemClock().now_us(),
            ),
        )
        detail = _detail(store, record)
    if summary.resume is None:
        summary = replace(summary, resume=_resume(summary.conversations))
    return Result(
        data={**summary_document(summary), **detail_document(detail)},
        blocks=() if as_json else [*summary_blocks(summary), *detail_blocks(detail)],
    )


def _detail(store: "SqliteStore", session: "SessionRecord") -> "SessionDetail":
    from opencode_gate.agents.opencode.folders import agent_folders, database_file
    from opencode_gate.agents.opencode.run_record import prompt_texts
    from opencode_gate.cli.session_view import SessionDetail
    from opencode_gate.session.prompts import mode_costs, prompt_costs, with_texts
    from opencode_gate.session.tree import conversation_tree

    exchanges = store.exchanges(session.id)
    conversations = store.conversations(session.id)
    prompts = prompt_costs(exchanges, conversations)
    database = database_file(os.environ, agent_folders(os.environ))
    ids = [prompt.prompt_id for prompt in prompts if prompt.prompt_id is not None]
    return SessionDetail(
        directory=session.directory,
        tree=conversation_tree(session.id, exchanges, conversations),
        prompts=with_texts(prompts, prompt_texts(database, ids) if ids else None),
        modes=mode_costs(exchanges),
    )


def _reconciliation(store: "SqliteStore", session_id: str) -> "Reconciliation | None":
    from opencode_gate.session.reconciliation import decoded

    document = store.reconciliation(session_id)
    return None if document is None else decoded(document)


def _reconciled(session: str, *, as_json: bool) -> Result:
    """A session beside Opencode's own count."""
    from opencode_gate.cli.reconcile_view import reconciliation_blocks, reconciliation_document
    from opencode_gate.cli.summary_view import headline, session_document

    with _ledger() as store:
        record = store.session(session)
        found = _reconciliation(store, record.id)
    return Result(
        data={
            "session": session_document(record),
            "reconciliation": reconciliation_document(found),
        },
        blocks=() if as_json else reconciliation_blocks(headline(record), found),
    )


def _compared(session: str, names: Sequence[str], *, as_json: bool) -> Result:
    """The tokens of a session on other models."""
    from opencode_gate.cli.summary_view import headline, session_document
    from opencode_gate.cli.what_if_view import compare, what_if_blocks, what_if_document

    with _ledger() as store:
        record = store.session(session)
        found = compare(store.exchanges(record.id), names)
    return Result(
        data={"session": session_document(record), "what_if": what_if_document(found)},
        blocks=() if as_json else what_if_blocks(found, headline(record)),
    )


def _cache(session: str, *, as_json: bool) -> Result:
    """The prompt cache of a session, conversation by conversation."""
    from opencode_gate.cli.cache_view import cache_blocks, cache_document
    from opencode_gate.cli.price_book import price_book, price_of
    from opencode_gate.cli.summary_view import headline
    from opencode_gate.session.cache_doctor import examine

    with _ledger() as store:
        record = store.session(session)
        exchanges = store.exchanges(record.id)
        tool_sets = store.tool_sets({e.tool_set for e in exchanges if e.tool_set is not None})
        titles = {c.id: c.title for c in store.conversations(record.id) if c.title}
    book = price_book()

    def price(exchange: "ExchangeRecord") -> "ModelPrice | None":
        models = (exchange.response_model, exchange.request_model)
        return price_of(book, exchange.provider_name, models, at_us=exchange.started_at_us)

    histories = examine(exchanges, price_of=price, tool_sets=tool_sets)
    return Result(
        data=cache_document(record, histories, titles),
        blocks=() if as_json else cache_blocks(headline(record), histories, titles),
    )


@app.command()
def export(
    session: Annotated[
        str | None, typer.Argument(metavar="SESSION", help="Only this one; else all of them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Into a file, 0600.")
    ] = None,
) -> Result:
    """Every model call as a line of JSON (JSON Lines), without prompts or answers."""
    from opencode_gate.cli.call_view import json_line

    with _ledger() as store:
        chosen = store.sessions() if session is None else [store.session(session)]
        lines = (
            json_line(record, exchange)
            for record in reversed(chosen)
            for exchange in store.exchanges(record.id)
        )
        if output is None:
            render.print_lines(lines)
            return Result(data={})
        count = _write_private(output, lines)
    return Result(data={}, talk=[f"{figures.counted(count, 'model call')} written to {output}"])


@contextmanager
def _ledger() -> "Iterator[SqliteStore]":
    from opencode_gate.config.paths import paths
    from opencode_gate.ledger.sqlite import open_store

    store = open_store(paths().ledger_file, read_only=True)
    try:
        yield store
    finally:
        store.close()


def _with_totals(
    store: "SqliteStore", sessions: "Sequence[SessionRecord]"
) -> "list[tuple[SessionRecord, Totals]]":
    """Each session with its totals, in one query."""
    from opencode_gate.ledger.totals import Totals, UsageQuery

    if not sessions:
        return []
    ids = tuple(session.id for session in sessions)
    found = store.usage(UsageQuery(session_ids=ids, by=("session",)))
    totals = {row.key["session"]: row.totals for row in found}
    return [(session, totals.get(session.id, Totals())) for session in sessions]


def _resume(conversations: "Iterable[ConversationTotals]") -> str | None:
    """The line that goes on where the session ended."""
    main = [
        conversation.record.id
        for conversation in conversations
        if conversation.record.kind is ConversationKind.MAIN and conversation.record.id
    ]
    return f"ogate run -- -s {main[-1]}" if main else None


def _table(rows: "list[tuple[SessionRecord, Totals]]") -> Block:
    return Table(
        columns=(
            Column("session"),
            Column("started"),
            Column("project", wrap=True),
            Column("time", "right"),
            Column("requests", "right"),
            Column("cost", "right"),
            Column("exit", "right"),
        ),
        rows=[
            (
                figures.short_id(session.id),
                figures.time_text(session.started_at_us),
                f"{session.project} ({session.branch})" if session.branch else session.project,
                _length(session),
                str(total.requests),
                _cost(total),
                figures.NOTHING if session.exit_status is None else str(session.exit_status),
            )
            for session, total in rows
        ],
    )


def _length(session: "SessionRecord") -> str:
    if session.ended_at_us is None:
        return figures.NOTHING
    return figures.duration_text(session.ended_at_us - session.started_at_us)


def _cost(totals: "Totals") -> str:
    if not totals.requests:
        return figures.NOTHING
    return figures.money_text(
        totals.cost_nano_usd, totals.cost_quality, unknown_requests=totals.unknown_cost_requests
    )


def _write_private(output: Path, lines: Iterable[str]) -> int:
    """Writes lines to a file of its owner alone and counts them.

    Raises:
        ConfigError: the file cannot be written.
    """
    count = 0
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            if output.is_file():
                # One that was there keeps the mode it had.
                output.chmod(0o600)
            for line in lines:
                file.write(line + "\n")
                count += 1
    except OSError as error:
        raise ConfigError(
            "folder-unwritable", f"cannot write {output}: {error.strerror}"
        ) from error
    return count
