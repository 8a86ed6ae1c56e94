"""The output limit of a request, lowered in the body in the format's own words.

The invariant: what a provider honours afterwards is at most what was asked of it here, also
where the client says it twice; every byte but those of the limit stays.
"""

from collections.abc import Iterable

import msgspec

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.facts import RequestFacts
from opencode_gate.wire.routes import Route
from opencode_gate.wire.splice import Change, Member, members, with_changes, with_member

SENSIBLE_TOKENS = 1024
"""An answer that may not be as long as this helps nobody."""

_NAMES: dict[WireFormat, tuple[str, ...]] = {
    # https://platform.openai.com/docs/api-reference/chat/create
    WireFormat.OPENAI_CHAT: ("max_completion_tokens", "max_tokens"),
    # https://platform.openai.com/docs/api-reference/responses/create
    WireFormat.OPENAI_RESPONSES: ("max_output_tokens",),
    # https://docs.claude.com/en/api/messages
    WireFormat.ANTHROPIC_MESSAGES: ("max_tokens",),
    # https://ai.google.dev/api/generate-content#generationconfig
    WireFormat.GEMINI_GENERATE: ("maxOutputTokens", "max_output_tokens"),
}
_REFUSE_LESS = (WireFormat.ANTHROPIC_MESSAGES, WireFormat.OPENAI_CHAT)
"""Where an output limit below what may be thought is an error."""
_GEMINI_CONFIGS = ("generationConfig", "generation_config")
_KNOW_THE_NEW_NAME = frozenset({"openai", "azure", "azure-cognitive-services"})
"""Providers whose thinking models refuse `max_tokens`; others know nothing else."""


def smallest_sensible(route: Route, facts: RequestFacts) -> int:
    """The least output worth asking for: more than that may be thought, and a short answer.

    Below what the client itself asks for, `SENSIBLE_TOKENS`.
    """
    thinking = 0
    if route.wire_format in _REFUSE_LESS and facts.thinking_budget_tokens is not None:
        thinking = facts.thinking_budget_tokens
    least = thinking + SENSIBLE_TOKENS
    asked = facts.max_output_tokens
    # No answer has 0 tokens or fewer: whoever takes such a limit at all takes it for none.
    return least if asked is None or asked <= 0 else min(least, asked)


def with_output_limit(route: Route, body: bytes, tokens: int, *, provider_id: str) -> bytes:
    """A body whose answer has at most `tokens` tokens (in each choice, where there are several).

    A limit of the client's is lowered where it stands and never raised; without one the member
    is put in. `body` must be a JSON object, as `read_facts` has found it, and the route one that
    generates.
    """
    names = _NAMES[route.wire_format]
    start = body.index(b"{")
    if route.wire_format is WireFormat.GEMINI_GENERATE:
        return _with_gemini_limit(body, start, names, tokens)
    found = members(body, start)
    if any(_limit(body, member) is not None for member in found if member.name in names):
        return with_changes(body, _lowered(body, found, names, tokens))
    name = names[0]
    if route.wire_format is WireFormat.OPENAI_CHAT and provider_id not in _KNOW_THE_NEW_NAME:
        name = "max_tokens"
    return _with_limit(body, start, found, name, tokens)


def _with_gemini_limit(body: bytes, start: int, names: tuple[str, ...], tokens: int) -> bytes:
    found = members(body, start)
    configs = [
        member
        for member in found
        if member.name in _GEMINI_CONFIGS and body.startswith(b"{", member.start)
    ]
    if not configs:
        limit = b'{"maxOutputTokens":%d}' % tokens
        return _with_value(body, start, found, _GEMINI_CONFIGS[0], limit)
    # From the last to the first, so that what is changed moves nothing that is still to come.
    for config in reversed(configs):
        inside = members(body, config.start)
        if any(_limit(body, member) is not None for member in inside if member.name in names):
            body = with_changes(body, _lowered(body, inside, names, tokens))
        else:
            body = _with_limit(body, config.start, inside, names[0], tokens)
    return body


def _lowered(
    body: bytes, found: Iterable[Member], names: tuple[str, ...], tokens: int
) -> list[Change]:
    changes = []
    for member in found:
        if member.name in names:
            limit = _limit(body, member)
            if limit is not None and not 0 < limit <= tokens:
                changes.append(Change(member.start, member.end, b"%d" % tokens))
    return changes


def _with_limit(body: bytes, start: int, found: list[Member], name: str, tokens: int) -> bytes:
    return _with_value(body, start, found, name, b"%d" % tokens)


def _with_value(body: bytes, start: int, found: list[Member], name: str, value: bytes) -> bytes:
    """A member put in, or one of that name that limits nothing replaced."""
    same = [Change(member.start, member.end, value) for member in found if member.name == name]
    if same:
        return with_changes(body, same)
    return with_member(body, start, b'"%s":%s' % (name.encode(), value))


def _limit(body: bytes, member: Member) -> float | None:
    """The number a member holds, `None` where it is none."""
    try:
        return msgspec.json.decode(body[member.start : member.end], type=float)
    except msgspec.DecodeError:
        return None
