"""Virtual keys: shape, hash, comparison."""

from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.governance.virtual_keys import (
    NO_HASH,
    hashed,
    key_parts,
    new_virtual_key,
    verify,
)


def test_a_new_key_has_both_parts_and_is_known_by_its_hash_alone() -> None:
    """The token splits into what may be shown and what is verified."""
    key = new_virtual_key()
    parts = key_parts(key.token)
    assert parts is not None
    assert parts.public_id == key.public_id
    assert len(parts.public_id) == 12
    assert len(parts.secret) == 48
    assert verify(key.secret_hash, parts.secret)
    assert parts.secret not in key.secret_hash


def test_two_keys_share_nothing_and_one_secret_hashes_differently_each_time() -> None:
    """Chance and salt are of each key's own."""
    one, other = new_virtual_key(), new_virtual_key()
    assert one.public_id != other.public_id
    assert one.token[-48:] != other.token[-48:]
    assert hashed("same") != hashed("same")


def test_a_rotated_key_keeps_its_public_part_and_forgets_the_old_secret() -> None:
    """Rotating changes the secret alone."""
    old = new_virtual_key()
    new = new_virtual_key(public_id=old.public_id)
    assert new.public_id == old.public_id
    assert not verify(new.secret_hash, old.token[-48:])


@given(st.text(), st.text())
def test_any_other_text_is_refused_without_a_crash(secret_hash: str, secret: str) -> None:
    """Whatever stands in the policy or in a header."""
    assert not verify(new_virtual_key().secret_hash, secret)
    assert not verify(secret_hash, secret)
    assert not verify(NO_HASH, secret)
    key_parts(secret)


def test_what_only_looks_like_a_key_has_no_parts() -> None:
    """Too short, too long, other letters, a line end behind it."""
    token = new_virtual_key().token
    for text in (token[:-1], token + "a", token + "\n", " " + token, token.replace("-", "_", 1)):
        assert key_parts(text) is None
