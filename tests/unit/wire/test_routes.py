import pytest

from opencode_gate.core.semconv import Operation, WireFormat
from opencode_gate.wire.routes import identify

CHAT, RESPONSES = WireFormat.OPENAI_CHAT, WireFormat.OPENAI_RESPONSES
ANTHROPIC, GEMINI = WireFormat.ANTHROPIC_MESSAGES, WireFormat.GEMINI_GENERATE
UNKNOWN = WireFormat.UNKNOWN


@pytest.mark.parametrize(
    ("method", "path", "wire_format", "operation"),
    [
        ("POST", "/p/groq/openai/v1/chat/completions", CHAT, Operation.GENERATE),
        ("POST", "/p/x/api/paas/v4/chat/completions", CHAT, Operation.GENERATE),
        ("POST", "/p/openai/v1/responses", RESPONSES, Operation.GENERATE),
        ("POST", "/p/openai/v1/responses/compact", RESPONSES, Operation.GENERATE),
        ("POST", "/p/openai/v1/responses/input_tokens", RESPONSES, Operation.COUNT_TOKENS),
        ("POST", "/p/anthropic/v1/messages", ANTHROPIC, Operation.GENERATE),
        ("POST", "/p/anthropic/v1/messages?beta=true", ANTHROPIC, Operation.GENERATE),
        ("POST", "/p/anthropic/v1/messages/count_tokens", ANTHROPIC, Operation.COUNT_TOKENS),
        ("POST", "/p/google/v1/models/m:countTokens", GEMINI, Operation.COUNT_TOKENS),
        ("GET", "/p/openai/v1/models", UNKNOWN, Operation.LIST_MODELS),
        ("GET", "/p/openai/v1/models/gpt-5", UNKNOWN, Operation.LIST_MODELS),
        ("GET", "/p/google/v1beta/models", GEMINI, Operation.LIST_MODELS),
        ("POST", "/p/openai/v1/embeddings", UNKNOWN, Operation.OTHER),
        ("POST", "/p/openai/v1/completions", UNKNOWN, Operation.OTHER),
        ("POST", "/p/google/v1beta/models/m:embedContent", UNKNOWN, Operation.OTHER),
        ("POST", "/p/google/v1beta/models/:generateContent", UNKNOWN, Operation.OTHER),
        ("GET", "/p/openai/v1/responses", UNKNOWN, Operation.OTHER),
        ("GET", "/p/openai/v1/chat/completions", UNKNOWN, Operation.OTHER),
        ("POST", "/xmessages", UNKNOWN, Operation.OTHER),
        ("POST", "/", UNKNOWN, Operation.OTHER),
        ("POST", "", UNKNOWN, Operation.OTHER),
        ("POST", "%", UNKNOWN, Operation.OTHER),
    ],
)
def test_the_end_of_the_path_names_format_and_operation(method, path, wire_format, operation):
    route = identify(method, path)
    assert (route.wire_format, route.operation) == (wire_format, operation)


@pytest.mark.parametrize(
    "path", ["/v1/messages/", "/v1/messages//", "/v1/mess%61ges", "/v1/%6Dessages/?x=1"]
)
def test_another_spelling_of_a_generation_call_is_still_one(path):
    """A call that costs money is not taken for `other` because of how its path is written."""
    assert identify("POST", path).operation is Operation.GENERATE


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-3-pro:generateContent", "gemini-3-pro", False),
        ("/v1/models/gemini-3-pro:streamGenerateContent?alt=sse", "gemini-3-pro", True),
        ("/v1/models/a%2Fb%3Ac:streamGenerateContent", "a/b:c", True),
        ("/v1/publishers/google/models/x:generateContent", "x", False),
    ],
)
def test_gemini_names_model_and_streaming_in_the_path(path, model, stream):
    route = identify("POST", path)
    assert route.wire_format is GEMINI
    assert route.operation is Operation.GENERATE
    assert (route.model, route.stream) == (model, stream)


def test_other_formats_leave_model_and_streaming_to_the_body():
    route = identify("POST", "/v1/messages")
    assert (route.model, route.stream) == (None, None)
