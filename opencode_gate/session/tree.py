"""A session's conversations as a tree: what each did itself, and with all that hangs on it.

A conversation's titles and compactions are leaves under it, its sub-agents are branches. The
invariant: every exchange of the session is in exactly one node's `own`, so the roots' totals
rolled up are the session's.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from opencode_gate.core.semconv import ConversationKind
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord
from opencode_gate.ledger.totals import Totals, total_of

_LEAF_KINDS = (ConversationKind.TITLE, ConversationKind.COMPACTION, ConversationKind.OTHER)


class ConversationNode(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation, or one conversation's calls of another kind.

    Attributes:
        record: for calls beside the conversation its record with their kind; an empty id for
            exchanges that named no conversation.
        own: what it did itself.
        rolled_up: that, and all below it.
        started_at_us: when its first exchange, or the first below it, began; `None` without any.
        duration_us: from then to the end of the last one.
    """

    record: ConversationRecord
    own: Totals
    rolled_up: Totals
    children: tuple["ConversationNode", ...] = ()
    started_at_us: int | None = None
    duration_us: int | None = None

    @property
    def requests(self) -> int:
        """Generation calls, those below it included."""
        return self.rolled_up.requests


def conversation_tree(
    session_id: str,
    exchanges: Iterable[ExchangeRecord],
    conversations: Iterable[ConversationRecord],
) -> tuple[ConversationNode, ...]:
    """The roots, in the order they were begun.

    A conversation without an exchange of its own is there only where something hangs on it.
    """
    groups: dict[tuple[str, ConversationKind | None], list[ExchangeRecord]] = {}
    parents: dict[str, str] = {}
    for exchange in exchanges:
        conversation_id = exchange.conversation_id or ""
        leaf = exchange.kind if exchange.kind in _LEAF_KINDS and conversation_id else None
        groups.setdefault((conversation_id, leaf), []).append(exchange)
        if exchange.parent_conversation_id is not None and conversation_id:
            parents.setdefault(conversation_id, exchange.parent_conversation_id)
    known = {record.id: record for record in conversations}
    parents.update(
        {record.id: record.parent_id for record in known.values() if record.parent_id is not None}
    )
    growing = _Growing(session_id, groups, known, _without_loops(parents))
    return _by_start(growing.node(root_id) for root_id in growing.roots())


def _without_loops(parents: Mapping[str, str]) -> dict[str, str]:
    """The parents, but for those that would make a conversation its own ancestor."""
    sound: dict[str, str] = {}
    for conversation_id, parent_id in parents.items():
        above: str | None = parent_id
        while above is not None and above != conversation_id:
            above = sound.get(above)
        if above is None:
            sound[conversation_id] = parent_id
    return sound


class _Growing:
    """The parts of the tree that is being made."""

    def __init__(
        self,
        session_id: str,
        groups: Mapping[tuple[str, ConversationKind | None], Sequence[ExchangeRecord]],
        known: Mapping[str, ConversationRecord],
        parents: Mapping[str, str],
    ) -> None:
        self._session_id = session_id
        self._groups = groups
        self._known = known
        self._parents = parents
        self._roots: dict[str, None] = {}
        self._children: dict[str, dict[str, None]] = {}
        for conversation_id, _ in groups:
            self._hang(conversation_id)

    def roots(self) -> tuple[str, ...]:
        """The conversations under no other."""
        return tuple(self._roots)

    def node(self, conversation_id: str) -> ConversationNode:
        """A conversation with all below it."""
        return self._grown(conversation_id)[0]

    def _hang(self, conversation_id: str) -> None:
        """Hangs a conversation under its parent, and that under its own, up to a root."""
        while (parent_id := self._parents.get(conversation_id)) is not None:
            self._children.setdefault(parent_id, {})[conversation_id] = None
            conversation_id = parent_id
        self._roots[conversation_id] = None

    def _grown(self, conversation_id: str) -> tuple[ConversationNode, list[ExchangeRecord]]:
        record = self._record(conversation_id)
        own = list(self._groups.get((conversation_id, None), ()))
        everything = list(own)
        children = []
        for kind in _LEAF_KINDS:
            calls = self._groups.get((conversation_id, kind))
            if calls:
                leaf = replace(record, kind=kind)
                children.append(_node(leaf, own=calls, everything=calls, children=()))
                everything += calls
        for child_id in self._children.get(conversation_id, ()):
            child, below = self._grown(child_id)
            children.append(child)
            everything += below
        return _node(record, own=own, everything=everything, children=children), everything

    def _record(self, conversation_id: str) -> ConversationRecord:
        parent_id = self._parents.get(conversation_id)
        record = self._known.get(conversation_id)
        if record is not None:
            return replace(record, parent_id=parent_id)
        kind = ConversationKind.MAIN if parent_id is None else ConversationKind.SUBAGENT
        return ConversationRecord(
            id=conversation_id,
            session_id=self._session_id,
            parent_id=parent_id,
            kind=kind if conversation_id else ConversationKind.OTHER,
        )


def _node(
    record: ConversationRecord,
    *,
    own: Sequence[ExchangeRecord],
    everything: Sequence[ExchangeRecord],
    children: Iterable[ConversationNode],
) -> ConversationNode:
    starts = [exchange.started_at_us for exchange in everything]
    ends = [
        exchange.started_at_us + (0 if exchange.duration_us is None else exchange.duration_us)
        for exchange in everything
    ]
    return ConversationNode(
        record=record,
        own=total_of(own),
        rolled_up=total_of(everything),
        children=_by_start(children),
        started_at_us=min(starts, default=None),
        duration_us=max(ends) - min(starts) if starts else None,
    )


def _by_start(nodes: Iterable[ConversationNode]) -> tuple[ConversationNode, ...]:
    return tuple(sorted(nodes, key=lambda node: (node.started_at_us or 0, node.record.id)))
