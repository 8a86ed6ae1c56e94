"""The door of a served gateway."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.ids import new_ulid
from opencode_gate.governance.decisions import Denied
from opencode_gate.governance.policy import Policy, VirtualKey
from opencode_gate.governance.served_keys import ServedDoor
from opencode_gate.governance.session_tokens import SessionTokens
from opencode_gate.governance.virtual_keys import new_virtual_key

SERVED = new_ulid()
SESSION = new_ulid()
ADA = new_virtual_key()
BOB = new_virtual_key()


class _Clock:
    def __init__(self) -> None:
        self.now = 1_790_000_000_000_000

    def now_us(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return 0.0


class _Gateway:
    """A door, and what changes behind it."""

    def __init__(self) -> None:
        self.clock = _Clock()
        self.open_sessions = {SESSION}
        self.mark = 1
        self.asked = 0
        self.policy = Policy(
            revision=1,
            virtual_keys={
                "ada": VirtualKey(public_id=ADA.public_id, secret_hash=ADA.secret_hash),
                "bob": VirtualKey(public_id=BOB.public_id, secret_hash=BOB.secret_hash),
            },
        )
        self.door = self.new_door()

    def new_door(self) -> ServedDoor:
        return ServedDoor(
            lambda: self.policy,
            SessionTokens(b"k" * 32),
            self.is_open,
            lambda: self.mark,
            self.clock,
            session_id=SERVED,
        )

    def is_open(self, session_id: str) -> bool:
        self.asked += 1
        return session_id in self.open_sessions

    def change(self, name: str, **fields: object) -> None:
        changed = msgspec.structs.replace(self.policy.virtual_keys[name], **fields)
        self.policy = Policy(
            revision=self.policy.revision + 1,
            virtual_keys={**self.policy.virtual_keys, name: changed},
        )

    def refusal(self, *headers: tuple[bytes, bytes], query: bytes = b"") -> Denied:
        with pytest.raises(Denied) as caught:
            self.door.admit(headers, query)
        assert caught.value.http_status == 401
        return caught.value


@pytest.fixture
def gateway() -> _Gateway:
    return _Gateway()


def bearer(token: str) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + token.encode())


@pytest.mark.parametrize(
    ("header", "before"),
    [
        (b"authorization", b"Bearer "),
        (b"authorization", b"bearer "),
        (b"x-api-key", b""),
        (b"x-goog-api-key", b""),
        (b"api-key", b""),
        (b"x-ogate-key", b""),
        (b"x-ogate-token", b""),
    ],
)
def test_a_key_is_found_wherever_an_sdk_puts_one(
    gateway: _Gateway, header: bytes, before: bytes
) -> None:
    """Every place that clients have for a key."""
    caller = gateway.door.admit([(b"host", b"x"), (header, before + ADA.token.encode())], b"")
    assert caller == (SERVED, None, "ada", ADA.token.encode())


@pytest.mark.parametrize(
    "header", [(b"authorization", b"Bearer %b "), (b"x-api-key", b"%b\t ")], ids=["bearer", "bare"]
)
def test_white_space_behind_a_key_is_no_part_of_it(
    gateway: _Gateway, header: tuple[bytes, bytes]
) -> None:
    """Programs send it along when the variable that holds the key ends with it."""
    name, value = header
    token = ADA.token.encode()
    assert gateway.door.admit([(name, value % token)], b"").token == token


def test_a_key_is_found_in_the_query(gateway: _Gateway) -> None:
    """As Gemini's clients send it."""
    assert gateway.door.admit([], b"alt=sse&key=" + BOB.token.encode()).virtual_key == "bob"


def test_two_different_tokens_are_refused_and_twice_the_same_is_not(gateway: _Gateway) -> None:
    """Else the second would be passed on to a provider."""
    both = [bearer(ADA.token), (b"x-api-key", BOB.token.encode())]
    assert gateway.refusal(*both).code == "unknown-virtual-key"
    gateway.refusal(bearer(ADA.token), query=b"key=" + BOB.token.encode())
    twice = [bearer(ADA.token), (b"x-ogate-token", ADA.token.encode())]
    assert gateway.door.admit(twice, b"").virtual_key == "ada"


def test_a_key_that_is_switched_off_is_refused_at_once_and_works_again(gateway: _Gateway) -> None:
    """Revocation acts on the next request, also for a token that was believed before."""
    gateway.door.admit([bearer(ADA.token)], b"")
    gateway.change("ada", active=False)
    assert gateway.refusal(bearer(ADA.token)).code == "virtual-key-disabled"
    assert gateway.door.admit([bearer(BOB.token)], b"").virtual_key == "bob"
    gateway.change("ada", active=True)
    assert gateway.door.admit([bearer(ADA.token)], b"").virtual_key == "ada"


def test_a_key_expires_while_it_is_in_use(gateway: _Gateway) -> None:
    """On the very microsecond, with no change of policy."""
    gateway.change("ada", expires_at="2026-11-21T20:00:00+01:00")
    gateway.clock.now = 1_795_287_600_000_000 - 1
    gateway.door.admit([bearer(ADA.token)], b"")
    gateway.clock.now += 1
    assert gateway.refusal(bearer(ADA.token)).code == "virtual-key-expired"
    assert gateway.new_door() is not gateway.door
    gateway.door = gateway.new_door()
    assert gateway.refusal(bearer(ADA.token)).code == "virtual-key-expired"


def test_who_has_a_wrong_secret_learns_nothing(gateway: _Gateway) -> None:
    """A known public part with a wrong secret sounds like an unknown key, also if it is off."""
    wrong = f"ogk-{ADA.public_id}-{'x' * 48}"
    gateway.change("ada", active=False)
    stranger = new_virtual_key().token
    assert gateway.refusal(bearer(wrong)).message == gateway.refusal(bearer(stranger)).message
    assert gateway.refusal().message == gateway.refusal(bearer("sk-of-theirs")).message


def test_a_session_token_stands_for_its_session_and_outlives_a_restart(gateway: _Gateway) -> None:
    """The next process knows it too, by the same key."""
    ada = gateway.door.admit([bearer(ADA.token)], b"")
    token = gateway.door.token_for(SESSION, ada)
    for door in (gateway.door, gateway.new_door()):
        caller = door.admit([bearer(token)], b"")
        assert (caller.session_id, caller.virtual_key) == (SESSION, "ada")


def test_a_session_token_dies_with_its_session(gateway: _Gateway) -> None:
    """At once where the session ends, and for good."""
    ada = gateway.door.admit([bearer(ADA.token)], b"")
    token = gateway.door.token_for(SESSION, ada)
    gateway.door.admit([bearer(token)], b"")
    gateway.door.end(SESSION)
    gateway.open_sessions.clear()
    gateway.refusal(bearer(token))
    gateway.door = gateway.new_door()
    gateway.refusal(bearer(token))


def test_a_session_token_falls_with_its_key(gateway: _Gateway) -> None:
    """Switched off, given a new secret, or removed."""
    ada = gateway.door.admit([bearer(ADA.token)], b"")
    token = gateway.door.token_for(SESSION, ada)
    gateway.change("ada", active=False)
    assert gateway.refusal(bearer(token)).code == "virtual-key-disabled"
    gateway.change("ada", active=True, secret_hash=new_virtual_key().secret_hash)
    assert gateway.refusal(bearer(token)).code == "unknown-virtual-key"
    gateway.policy = Policy(revision=9)
    assert gateway.refusal(bearer(token)).code == "unknown-virtual-key"


def test_a_session_token_is_good_for_no_other_session_or_key(gateway: _Gateway) -> None:
    """Every part of it is under the MAC."""
    ada = gateway.door.admit([bearer(ADA.token)], b"")
    token = gateway.door.token_for(SESSION, ada)
    other = new_ulid()
    gateway.open_sessions.add(other)
    gateway.refusal(bearer(token.replace(SESSION, other)))
    gateway.refusal(bearer(token.replace(ADA.public_id, BOB.public_id)))
    gateway.refusal(bearer(token[:-1] + ("0" if token[-1] != "0" else "1")))


_NAMES = st.sampled_from(
    [b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"x-ogate-key", b"cookie"]
)
_VALUES = st.one_of(
    st.binary(max_size=80),
    st.builds(bytes.__add__, st.sampled_from([b"ogk-", b"ogs-", b"Bearer ogk-"]), st.binary()),
    st.text(max_size=80).map(str.encode),
    st.just(b"ogk-' OR 1=1; DROP TABLE sessions; --"),
)


@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6), st.binary(max_size=80))
def test_whatever_else_a_request_carries_is_refused(
    headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    """No crash and no way in: the only other answer is 401."""
    gateway = _Gateway()
    gateway.refusal(*headers, query=query)


@given(st.integers(0, 64), st.characters(codec="ascii"))
def test_one_wrong_character_is_enough(place: int, character: str) -> None:
    """Anywhere in the key."""
    gateway = _Gateway()
    text = ADA.token[:place] + character + ADA.token[place + 1 :]
    if text != ADA.token:
        gateway.refusal((b"x-api-key", text.encode()))


def test_a_session_that_another_process_has_ended_is_let_in_no_more(gateway: _Gateway) -> None:
    """The ledger is asked again when it has changed, and only then."""
    token = gateway.door.token_for(SESSION, gateway.door.admit([bearer(ADA.token)], b""))
    for _ in range(3):
        assert gateway.door.admit([bearer(token)], b"").session_id == SESSION
    assert gateway.asked == 1
    gateway.mark = 2
    for _ in range(3):
        assert gateway.door.admit([bearer(token)], b"").session_id == SESSION
    assert gateway.asked == 2
    gateway.open_sessions.clear()
    gateway.mark = 3
    for _ in range(2):
        assert gateway.refusal(bearer(token)).code == "unknown-virtual-key"


def test_what_is_remembered_of_ended_sessions_is_bounded(gateway: _Gateway) -> None:
    """The ledger knows of the first of them by then."""
    token = gateway.door.token_for(SESSION, gateway.door.admit([bearer(ADA.token)], b""))
    gateway.door.admit([bearer(token)], b"")
    gateway.door.end(SESSION)
    gateway.open_sessions.clear()
    for number in range(20_000):
        gateway.door.end(f"session {number}")
    assert len(gateway.door._ended) <= 16_384
    assert gateway.refusal(bearer(token)).code == "unknown-virtual-key"
