"""A session from within: its conversations as a tree, its prompts and its modes.

The invariant: a conversation's line holds everything below it, and where it has anything below
it, the lines directly under it add up to it.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Column, Table, Text
from opencode_gate.cli.summary_view import TOTALS_COLUMNS, totals_cells, totals_document
from opencode_gate.core.semconv import ConversationKind

if TYPE_CHECKING:
    from opencode_gate.session.prompts import ModeCost, PromptCost
    from opencode_gate.session.tree import ConversationNode

_LONGEST_PROMPT = 60
_NO_CONVERSATION = "calls that named no conversation"
_OWN = "its own turns"


class SessionDetail(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is made of; `directory` is where it was started."""

    directory: str
    tree: "tuple[ConversationNode, ...]"
    prompts: "tuple[PromptCost, ...]"
    modes: "tuple[ModeCost, ...]"


def detail_document(detail: SessionDetail) -> dict[str, object]:
    """The parts for machines. What was typed is not in it: a document may be kept."""
    return {
        "tree": [_node_document(node) for node in detail.tree],
        "prompts": [
            {
                "prompt_id": prompt.prompt_id,
                "conversation_id": prompt.conversation_id,
                "mode": prompt.mode,
                "started_at": figures.iso_text(prompt.started_at_us),
                **totals_document(prompt.totals),
            }
            for prompt in detail.prompts
        ],
        "modes": [
            {"mode": mode.mode, "prompts": mode.prompts, **totals_document(mode.totals)}
            for mode in detail.modes
        ],
    }


def _node_document(node: "ConversationNode") -> dict[str, object]:
    record = node.record
    return {
        "id": record.id or None,
        "kind": str(record.kind),
        "title": record.title,
        "agent_name": record.agent_name,
        "directory": record.directory,
        "started_at": figures.iso_text(node.started_at_us),
        "duration_s": None if node.duration_us is None else node.duration_us / 1_000_000,
        "own": totals_document(node.own),
        "rolled_up": totals_document(node.rolled_up),
        "children": [_node_document(child) for child in node.children],
    }


def detail_blocks(detail: SessionDetail) -> list[Block]:
    """The parts for people; what is not known has no table."""
    blocks: list[Block] = []
    if detail.tree:
        blocks += [Text(""), _tree_table(detail)]
    if any(prompt.prompt_id is not None for prompt in detail.prompts):
        blocks += [Text(""), _prompts_table(detail.prompts)]
    if any(mode.mode is not None for mode in detail.modes):
        blocks += [Text(""), _modes_table(detail.modes)]
    return blocks


def _tree_table(detail: SessionDetail) -> Table:
    return Table(
        columns=(Column("conversation", wrap=True), *TOTALS_COLUMNS, Column("time", "right")),
        rows=[row for node in detail.tree for row in _rows(node, detail.directory, "", "")],
    )


def _rows(
    node: "ConversationNode", directory: str, first: str, rest: str
) -> Iterator[tuple[str, ...]]:
    """The lines of a node: `first` stands before its own, `rest` before those below it."""
    label = f"{first}{_label(node, directory)}"
    yield (label, *totals_cells(node.rolled_up), _time(node.duration_us))
    if not node.children:
        return
    if node.own.requests:
        yield (f"{rest}├─ {_OWN}", *totals_cells(node.own), "")
    for child in node.children:
        is_last = child is node.children[-1]
        own, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        yield from _rows(child, directory, rest + own, rest + below)


def _label(node: "ConversationNode", directory: str) -> str:
    record = node.record
    if not record.id:
        return _NO_CONVERSATION
    match record.kind:
        case ConversationKind.MAIN:
            name = record.title or record.id
        case ConversationKind.SUBAGENT:
            agent = f"sub-agent {record.agent_name}" if record.agent_name else "sub-agent"
            name = f"{agent}: {record.title or record.id}"
        case ConversationKind.OTHER:
            name = "other calls"
        case _:
            return str(record.kind)
    is_elsewhere = record.directory not in (None, directory)
    return f"{name} (in {record.directory})" if is_elsewhere else name


def _prompts_table(prompts: "Sequence[PromptCost]") -> Table:
    return Table(
        columns=(Column("at"), Column("mode"), Column("prompt", wrap=True), *TOTALS_COLUMNS),
        rows=[
            (
                figures.time_text(prompt.started_at_us)[-5:],
                prompt.mode or figures.NOTHING,
                _prompt(prompt),
                *totals_cells(prompt.totals),
            )
            for prompt in prompts
        ],
    )


def _prompt(prompt: "PromptCost") -> str:
    if prompt.prompt_id is None:
        return "of no known prompt"
    if prompt.text is None:
        return prompt.prompt_id
    line = " ".join(prompt.text.split())
    return line if len(line) <= _LONGEST_PROMPT else f"{line[: _LONGEST_PROMPT - 1]}…"


def _modes_table(modes: "Sequence[ModeCost]") -> Table:
    return Table(
        columns=(Column("mode"), Column("prompts", "right"), *TOTALS_COLUMNS),
        rows=[
            (mode.mode or figures.NOTHING, str(mode.prompts), *totals_cells(mode.totals))
            for mode in modes
        ],
    )


def _time(duration_us: int | None) -> str:
    return figures.NOTHING if duration_us is None else figures.duration_text(duration_us)
