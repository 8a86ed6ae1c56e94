"""Only the launch token opens the gateway, wherever the client's SDK puts it."""

import pytest

from opencode_gate.governance.admission import Unauthorized, admit

TOKEN = b"ogs-0123456789abcdef"


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([(b"authorization", b"Bearer " + TOKEN)], b""),
        ([(b"x-api-key", TOKEN)], b""),
        ([(b"x-goog-api-key", TOKEN)], b""),
        ([(b"api-key", TOKEN)], b""),
        ([(b"x-ogate-token", TOKEN)], b""),
        ([], b"alt=sse&key=" + TOKEN),
    ],
)
def test_the_token_is_found(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    admit(TOKEN, headers, query)


def test_without_it_nobody_gets_in() -> None:
    with pytest.raises(Unauthorized) as refusal:
        admit(TOKEN, [(b"authorization", b"Bearer sk-other")], b"key=sk-other")
    assert refusal.value.http_status == 401
