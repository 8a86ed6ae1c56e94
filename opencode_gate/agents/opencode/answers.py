"""What Opencode's requests say about themselves: which conversation, and what for.

Every request names its conversation in `x-session-affinity` and `x-session-id` (providers whose
id starts with `opencode` use `x-opencode-session`), and a sub-agent's names its parent. Titles
and compactions are told by the head of their instructions. The invariant: a request that says
nothing gets `None` and `OTHER` or `MAIN`, never a guess at an id.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Protocol

from opencode_gate.core.semconv import ConversationKind

_CONVERSATION_HEADERS: Final = (b"x-session-affinity", b"x-session-id", b"x-opencode-session")
_PARENT_HEADER: Final = b"x-parent-session-id"
_MAX_ID_BYTES: Final = 128

_TITLE_HEADS: Final = ("You are a title generator", "Generate a short 2-3 word name")
_COMPACTION_HEADS: Final = (
    "You are a context summarization agent",
    "You are an anchored context summarization assistant",
    "You are a helpful AI assistant tasked with summarizing conversations",
)
_OTHER_HEADS: Final = ("Summarize what was done in this conversation",)


class Instructed(Protocol):
    """A request whose system prompt's first characters are known."""

    @property
    def instructions_head(self) -> str:
        """The first 200 characters of the system prompt."""
        ...


def conversation_of(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """See `conversation_in`; of headers in their order."""
    return conversation_in(dict(headers))


def conversation_in(fields: Mapping[bytes, bytes]) -> tuple[str | None, str | None]:
    """The conversation a request belongs to and that conversation's parent.

    The names of the headers are lower case.
    """
    own = None
    for name in _CONVERSATION_HEADERS:
        own = _id(fields.get(name))
        if own is not None:
            break
    return own, _id(fields.get(_PARENT_HEADER))


def kind_of(facts: Instructed, parent_id: str | None) -> ConversationKind:
    """What a request is for: a title, a compaction, a sub-agent's work or the main thread's."""
    head = facts.instructions_head.lstrip()
    if head.startswith(_TITLE_HEADS):
        return ConversationKind.TITLE
    if head.startswith(_COMPACTION_HEADS):
        return ConversationKind.COMPACTION
    if head.startswith(_OTHER_HEADS):
        return ConversationKind.OTHER
    return ConversationKind.SUBAGENT if parent_id is not None else ConversationKind.MAIN


@lru_cache(maxsize=256)
def _id(raw: bytes | None) -> str | None:
    """An id fit for a ledger column: short printable ASCII."""
    if not raw or len(raw) > _MAX_ID_BYTES:
        return None
    text = raw.decode("ascii", "replace").strip()
    return text if text.isascii() and text.isprintable() and text else None
