"""Completes a session's account from what Opencode wrote down itself.

Opencode's database gives conversations their titles and exchanges their prompts, and is the
other side of the comparison that every session ends with. The invariant: an absent or changed
database costs those lines and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from opencode_gate.agents.opencode.folders import database_file
from opencode_gate.agents.opencode.run_log import conversations_of_run
from opencode_gate.agents.opencode.run_record import RunRecord, run_record
from opencode_gate.config.paths import Paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.ledger.records import Annotation, ConversationRecord, ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.ledger.store import Store
from opencode_gate.session.check_line import check_line
from opencode_gate.session.differences import reconcile
from opencode_gate.session.discovery import Discovery
from opencode_gate.session.matching import Match, match_exchanges
from opencode_gate.session.plan import RunPlan
from opencode_gate.session.reconciliation import Bypass, Reconciliation, encoded
from opencode_gate.session.standing import standings_of_session
from opencode_gate.session.summary import Summary, summarise

_OTHER_SESSIONS = 20
"""How many of the latest sessions are asked whether a conversation is theirs."""


def account_for(
    plan: RunPlan, discovery: Discovery, paths: Paths, environ: Mapping[str, str]
) -> Summary:
    """The account of a session that has just ended.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    store = open_store(paths.ledger_file)
    try:
        exchanges = store.exchanges(plan.session.id)
        record = _recorded(store, exchanges, plan, discovery, environ)
        found = None if record is None else _completed(store, exchanges, record, plan, discovery)
        return summarise(
            store,
            plan.session.id,
            hidden=plan.hidden,
            bypass=() if found is None else found.bypasses,
            resume=None if record is None else _resume(record, store.exchanges(plan.session.id)),
            check=None if found is None else check_line(found),
            budgets=standings_of_session(
                paths.ledger_file, plan.session, exchanges, now_us=SystemClock().now_us()
            ),
        )
    finally:
        store.close()


def _completed(
    store: Store,
    exchanges: Sequence[ExchangeRecord],
    record: RunRecord,
    plan: RunPlan,
    discovery: Discovery,
) -> Reconciliation:
    """Writes into the ledger what the record tells, and compares the two."""
    matches = match_exchanges(exchanges, record)
    used = {match.conversation_id for match in matches}
    store.put_conversations(
        ConversationRecord(
            id=one.id,
            session_id=plan.session.id,
            parent_id=one.parent_id,
            title=one.title,
            kind=ConversationKind.MAIN if one.parent_id is None else ConversationKind.SUBAGENT,
            agent_name=one.agent_name,
            directory=one.directory,
        )
        for one in record.conversations
        if one.is_given or one.id in used
    )
    store.annotate(map(_annotation, matches))
    found = reconcile(matches, record, direct=plan.direct)
    bypasses = tuple(replace(one, mend=_mend(one, plan, discovery)) for one in found.bypasses)
    found = replace(found, bypasses=bypasses)
    store.put_reconciliation(plan.session.id, encoded(found))
    return found


def _recorded(
    store: Store,
    exchanges: Iterable[ExchangeRecord],
    plan: RunPlan,
    discovery: Discovery,
    environ: Mapping[str, str],
) -> RunRecord | None:
    """What Opencode recorded of this process's conversations.

    Where its log does not tell them apart from another Opencode's, those begun in the same
    folder meanwhile are looked at too, but for those of other sessions of ogate.
    """
    session = plan.session
    seen = {one.conversation_id for one in exchanges if one.conversation_id is not None}
    if plan.resumes is not None:
        # A run that ends at once may take the end of its log with it.
        seen.add(plan.resumes)
    logged = conversations_of_run(discovery.folders.data, session.id)
    return run_record(
        database_file(environ, discovery.folders),
        session.started_at_us,
        SystemClock().now_us(),
        conversation_ids=seen | (logged or frozenset()),
        directories=() if logged is not None else (session.directory,),
        foreign_ids=() if logged is not None else _of_other_sessions(store, session.id) - seen,
    )


def _of_other_sessions(store: Store, session_id: str) -> set[str]:
    """Conversations that other sessions of late served."""
    return {
        exchange.conversation_id
        for session in store.sessions(limit=_OTHER_SESSIONS)
        if session.id != session_id
        for exchange in store.exchanges(session.id)
        if exchange.conversation_id is not None
    }


def _annotation(match: Match) -> Annotation:
    exchange = match.exchange
    is_named = exchange.conversation_id is not None
    return Annotation(
        exchange_id=exchange.id,
        prompt_id=match.prompt_id,
        mode=match.mode,
        kind=None if match.kind is exchange.kind else match.kind,
        conversation_id=None if is_named else match.conversation_id,
    )


def _mend(bypass: Bypass, plan: RunPlan, discovery: Discovery) -> str | None:
    """The command that brings a provider's requests through the gateway from now on."""
    if bypass.is_expected:
        return None
    provider_id = bypass.provider_name
    if all(row.id != provider_id for row in plan.rows):
        return f"ogate keys add {provider_id}"
    if provider_id in discovery.sign_ins and not plan.disable_default_plugins:
        return f"ogate providers edit {provider_id} --subscription key"
    return "ogate doctor"


def _resume(record: RunRecord, exchanges: Sequence[ExchangeRecord]) -> str | None:
    """The line that takes up the main conversation used last."""
    parents = {one.id: one.parent_id for one in record.conversations}
    for exchange in reversed(exchanges):
        if exchange.conversation_id not in parents:
            continue
        root_id = exchange.conversation_id
        while (parent_id := parents.get(root_id)) is not None:
            root_id = parent_id
        return f"ogate run -- -s {root_id}"
    return None
