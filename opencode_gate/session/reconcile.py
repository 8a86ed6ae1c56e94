"""Completes a session's account from what Opencode wrote down itself.

Opencode's database gives conversations their titles and shows answers that never passed the
gateway. The invariant: an absent or changed database costs those lines and nothing else.
"""

from collections.abc import Iterable, Mapping

from opencode_gate.agents.opencode.database import (
    AgentAnswers,
    AgentConversation,
    answers_between,
    conversations_since,
)
from opencode_gate.agents.opencode.folders import database_file
from opencode_gate.config.paths import Paths
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.semconv import ConversationKind
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.session.discovery import Discovery
from opencode_gate.session.plan import RunPlan
from opencode_gate.session.summary import Bypass, Summary, summarise


def account_for(
    plan: RunPlan, discovery: Discovery, paths: Paths, environ: Mapping[str, str]
) -> Summary:
    """The account of a session that has just ended.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    database = database_file(environ, discovery.folders)
    since_us = plan.session.started_at_us
    store = open_store(paths.ledger_file)
    try:
        exchanges = store.exchanges(plan.session.id)
        seen = {record.conversation_id for record in exchanges if record.conversation_id}
        listed = conversations_since(database, since_us) or ()
        store.put_conversations(
            _record(plan.session.id, conversation)
            for conversation in listed
            if conversation.id in seen
        )
        answers = answers_between(
            database,
            since_us,
            SystemClock().now_us(),
            conversation_ids=seen,
            directory=plan.session.directory,
        )
        return summarise(
            store,
            plan.session.id,
            hidden=plan.hidden,
            bypass=tuple(_bypasses(answers or (), exchanges, plan.direct)),
            resume=_resume(listed, exchanges),
        )
    finally:
        store.close()


def _record(session_id: str, conversation: AgentConversation) -> ConversationRecord:
    is_child = conversation.parent_id is not None
    return ConversationRecord(
        id=conversation.id,
        session_id=session_id,
        parent_id=conversation.parent_id,
        title=conversation.title,
        kind=ConversationKind.SUBAGENT if is_child else ConversationKind.MAIN,
        agent_name=conversation.agent_name,
    )


def _bypasses(
    answers: Iterable[AgentAnswers],
    exchanges: Iterable[ExchangeRecord],
    direct: tuple[str, ...],
) -> Iterable[Bypass]:
    """Answers of providers that the gateway never saw in this session."""
    served = {record.provider_name for record in exchanges}
    for group in answers:
        if group.provider_id not in served:
            yield Bypass(
                provider_name=group.provider_id,
                model=group.model_id,
                answers=group.answers,
                is_expected=group.provider_id in direct,
            )


def _resume(listed: Iterable[AgentConversation], exchanges: Iterable[ExchangeRecord]) -> str | None:
    """The line that takes up the main conversation used last."""
    used = {record.conversation_id for record in exchanges}
    mains = [found for found in listed if found.parent_id is None and found.id in used]
    if not mains:
        return None
    latest = max(mains, key=lambda found: found.updated_at_us)
    return f"ogate run -- -s {latest.id}"
