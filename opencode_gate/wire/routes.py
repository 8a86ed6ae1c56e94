"""Which wire format and operation a request is, told from its method and path alone.

The idea: providers put the same few operations under bases of their own, so only the end of
the path counts. The invariant: identifying never fails; what is not recognised is
`Operation.OTHER` in an unknown format and is passed through without being read.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from urllib.parse import unquote

from opencode_gate.core.semconv import Operation, WireFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What a path says about a request.

    Attributes:
        model: the one named in the path (Gemini), percent-decoded; `None` where the body names it.
        deployment: what Azure's older paths name beside the body's model, and mean alone
            (https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference).
        stream: what the path says about streaming (Gemini); `None` where the body says it.
    """

    wire_format: WireFormat
    operation: Operation
    model: str | None = None
    deployment: str | None = None
    stream: bool | None = None


UNKNOWN_ROUTE = Route(wire_format=WireFormat.UNKNOWN, operation=Operation.OTHER)

_POST_SUFFIXES: tuple[tuple[str, Route], ...] = tuple(
    (suffix, Route(wire_format=wire_format, operation=operation))
    for suffix, wire_format, operation in (
        ("/chat/completions", WireFormat.OPENAI_CHAT, Operation.GENERATE),
        ("/messages", WireFormat.ANTHROPIC_MESSAGES, Operation.GENERATE),
        ("/responses", WireFormat.OPENAI_RESPONSES, Operation.GENERATE),
        ("/responses/compact", WireFormat.OPENAI_RESPONSES, Operation.GENERATE),
        ("/messages/count_tokens", WireFormat.ANTHROPIC_MESSAGES, Operation.COUNT_TOKENS),
        ("/responses/input_tokens", WireFormat.OPENAI_RESPONSES, Operation.COUNT_TOKENS),
    )
)

_GEMINI_VERBS: dict[str, tuple[Operation, bool]] = {
    "generateContent": (Operation.GENERATE, False),
    "streamGenerateContent": (Operation.GENERATE, True),
    "countTokens": (Operation.COUNT_TOKENS, False),
}


_REMEMBERED_CHARS_MAX = 256


def identify(method: str, path: str) -> Route:
    """The route of a request; a query behind `path` is ignored.

    The path is percent-decoded once and trailing slashes do not count, so that another
    spelling of a generation call is still seen as one.
    """
    if len(path) > _REMEMBERED_CHARS_MAX:
        return _identified(method, path)
    return _remembered(method, path)


def _identified(method: str, path: str) -> Route:
    path = path.partition("?")[0]
    if "%" in path:
        path = unquote(path)
    path = path.rstrip("/")
    if method == "POST":
        for suffix, route in _POST_SUFFIXES:
            if path.endswith(suffix):
                _, marker, rest = path.rpartition("/deployments/")
                return replace(route, deployment=rest.partition("/")[0]) if marker else route
        return _gemini(path)
    if method == "GET" and (path.endswith("/models") or "/models/" in path):
        is_gemini = "/v1beta/models" in path
        return Route(
            wire_format=WireFormat.GEMINI_GENERATE if is_gemini else WireFormat.UNKNOWN,
            operation=Operation.LIST_MODELS,
        )
    return UNKNOWN_ROUTE


_remembered = lru_cache(256)(_identified)


def _gemini(path: str) -> Route:
    """`…/models/{model}:{verb}` (https://ai.google.dev/api/generate-content)."""
    resource, _, verb = path.rpartition(":")
    _, marker, model = resource.rpartition("/models/")
    if not marker or not model:
        return UNKNOWN_ROUTE
    if verb not in _GEMINI_VERBS:
        # Nothing of it is read, but rules may have a word about its model.
        return Route(wire_format=WireFormat.UNKNOWN, operation=Operation.OTHER, model=model)
    operation, stream = _GEMINI_VERBS[verb]
    return Route(
        wire_format=WireFormat.GEMINI_GENERATE, operation=operation, model=model, stream=stream
    )
