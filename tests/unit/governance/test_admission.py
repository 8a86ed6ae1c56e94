"""Only the launch token opens the gateway, wherever the client's SDK puts it."""

import pytest

from opencode_gate.governance.admission import LaunchDoor, Unauthorized

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
    door = a_door()
    for _ in range(3):
        assert door.admit(headers, query).session_id == "01S"


def test_without_it_nobody_gets_in() -> None:
    """Also after somebody who had it, and with headers that say nothing."""
    door = a_door()
    for opened in ([(b"authorization", b"Bearer " + TOKEN)], []):
        door.admit(opened, b"key=" + TOKEN)
        for headers in ([(b"authorization", b"Bearer sk-other")], [], [(b"", b"")]):
            with pytest.raises(Unauthorized) as refusal:
                door.admit(headers, b"key=sk-other")
            assert refusal.value.http_status == 401


def a_door() -> LaunchDoor:
    return LaunchDoor(TOKEN, session_id="01S", user="dev")
