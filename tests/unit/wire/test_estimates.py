import pytest

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.estimates import estimated_tokens


@pytest.mark.parametrize("wire_format", WireFormat)
def test_nothing_is_no_token_and_anything_is_at_least_one(wire_format):
    assert estimated_tokens(0, wire_format) == 0
    assert estimated_tokens(1, wire_format) == 1
    assert 250 <= estimated_tokens(1000, wire_format) <= 300
