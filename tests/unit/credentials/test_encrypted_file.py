"""The encrypted file: unreadable without its key, whole at any moment, clear when damaged."""

import base64
import json
import os
import threading

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.errors import CredentialError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.encrypted_file import EncryptedFileStore, key_file

KEY = Secret("sk-test-0123456789abcdef")


class Person:
    """Answers the question for a passphrase and counts how often it comes."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, is_new):
        self.asked.append(is_new)
        return Secret(self.answers.pop(0))


def by_key_file():
    return EncryptedFileStore(paths())


def by_passphrase(person):
    return EncryptedFileStore(
        paths(), protection="passphrase", ask_passphrase=person, scrypt_cost=2**10
    )


def unreadable(store, deed=lambda store: store.get("openai", "default")):
    with pytest.raises(CredentialError) as caught:
        deed(store)
    assert caught.value.code == "credentials-unreadable"
    return caught.value


def test_reading_makes_no_file():
    assert by_key_file().get("openai", "default") is None
    by_key_file().delete("openai", "default")
    assert not paths().credentials_file.exists()
    assert not key_file(paths()).exists()


def test_both_files_are_their_owners_alone():
    by_key_file().set("openai", "default", KEY)
    for file in (paths().credentials_file, key_file(paths())):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_neither_key_nor_provider_can_be_read_from_the_file():
    by_key_file().set("openai", "default", KEY)
    content = paths().credentials_file.read_bytes()
    assert KEY.reveal().encode() not in content
    assert b"openai" not in content
    assert KEY.reveal().encode() not in base64.b64decode(json.loads(content)["sealed"])


def test_another_process_reads_it_with_the_key_file():
    by_key_file().set("openai", "default", KEY)
    assert by_key_file().get("openai", "default") == KEY


def test_every_write_has_its_own_nonce():
    """AES-GCM breaks when a nonce comes twice under one key."""
    store, nonces = by_key_file(), set()
    for _ in range(5):
        store.set("openai", "default", KEY)
        nonces.add(json.loads(paths().credentials_file.read_bytes())["nonce"])
    assert len(nonces) == 5


def test_the_passphrase_is_asked_once_a_process():
    by_passphrase(Person("correct horse")).set("openai", "default", KEY)
    person = Person("correct horse")
    store = by_passphrase(person)
    assert store.needs_passphrase
    assert person.asked == []
    store.unlock()
    assert store.get("openai", "default") == KEY
    store.set("openai", "work", KEY)
    assert person.asked == [False]


def test_a_new_passphrase_is_asked_as_a_new_one():
    person = Person("correct horse")
    by_passphrase(person).set("openai", "default", KEY)
    assert person.asked == [True]
    assert not key_file(paths()).exists()


def test_a_wrong_passphrase_is_said_and_asked_again():
    by_passphrase(Person("correct horse")).set("openai", "default", KEY)
    store = by_passphrase(Person("wrong", "correct horse"))
    assert "wrong passphrase" in unreadable(store).message
    assert store.get("openai", "default") == KEY


def test_nobody_to_ask_is_an_error_and_no_wait():
    by_passphrase(Person("correct horse")).set("openai", "default", KEY)
    with pytest.raises(CredentialError) as caught:
        by_passphrase(None).get("openai", "default")
    assert caught.value.code == "no-terminal"


def test_leaving_the_question_writes_nothing():
    def leave(is_new):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        by_passphrase(leave).set("openai", "default", KEY)
    assert not paths().data.exists() or os.listdir(paths().data) == []


def test_the_files_own_protection_counts_not_the_callers():
    by_key_file().set("openai", "default", KEY)
    person = Person()
    by_passphrase(person).set("openai", "work", KEY)
    assert person.asked == []
    assert by_key_file().get("openai", "work") == KEY


def test_a_lost_key_file_is_said_and_never_replaced():
    by_key_file().set("openai", "default", KEY)
    before = paths().credentials_file.read_bytes()
    key_file(paths()).unlink()
    for deed in (lambda s: s.get("openai", "default"), lambda s: s.set("openai", "x", KEY)):
        assert str(key_file(paths())) in unreadable(by_key_file(), deed).message
    assert paths().credentials_file.read_bytes() == before
    assert not key_file(paths()).exists()


def test_a_key_file_left_over_from_before_is_used():
    """A crash between the two files leaves it alone; the next key must not be lost by that."""
    by_key_file().set("openai", "default", KEY)
    paths().credentials_file.unlink()
    left_over = key_file(paths()).read_bytes()
    by_key_file().set("openai", "default", KEY)
    assert key_file(paths()).read_bytes() == left_over
    assert by_key_file().get("openai", "default") == KEY


def test_two_processes_that_make_the_file_lose_nothing():
    stores = [by_key_file() for _ in range(6)]
    threads = [
        threading.Thread(target=store.set, args=("openai", f"k{number}", KEY))
        for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [by_key_file().get("openai", f"k{number}") for number in range(6)] == [KEY] * 6


def test_another_key_file_opens_nothing():
    by_key_file().set("openai", "default", KEY)
    key_file(paths()).write_bytes(base64.b64encode(os.urandom(32)))
    unreadable(by_key_file())


def test_a_key_file_that_others_can_read_is_refused():
    by_key_file().set("openai", "default", KEY)
    key_file(paths()).chmod(0o644)
    assert "chmod 600" in unreadable(by_key_file()).hint


@pytest.mark.parametrize("content", [b"", b"!!", base64.b64encode(b"short")])
def test_a_damaged_key_file_is_said(content):
    by_key_file().set("openai", "default", KEY)
    key_file(paths()).write_bytes(content)
    unreadable(by_key_file())


def _changed(**change):
    document = json.loads(paths().credentials_file.read_bytes())
    return json.dumps(document | change).encode()


@pytest.mark.parametrize(
    "content",
    [
        lambda: b"",
        lambda: b"\xff",
        lambda: b"[]",
        lambda: b"{}",
        lambda: _changed(version="x"),
        lambda: _changed(version=2),
        lambda: _changed(protection="none"),
        lambda: _changed(nonce="!!"),
        lambda: _changed(nonce="AAAA"),
        lambda: _changed(sealed="AAAA"),
        lambda: _changed(sealed=None),
        lambda: paths().credentials_file.read_bytes()[:-40],
    ],
)
def test_a_damaged_file_is_said_and_left_alone(content):
    by_key_file().set("openai", "default", KEY)
    damaged = content()
    paths().credentials_file.write_bytes(damaged)
    error = unreadable(by_key_file(), lambda store: store.set("openai", "x", KEY))
    assert str(paths().credentials_file) in error.message
    assert paths().credentials_file.read_bytes() == damaged


def test_a_changed_header_is_found_out():
    """The header is authenticated: nobody weakens the cost of the passphrase unseen."""
    by_passphrase(Person("correct horse")).set("openai", "default", KEY)
    paths().credentials_file.write_bytes(_changed(scrypt_cost=2**9))
    unreadable(by_passphrase(Person("correct horse")))


@pytest.mark.parametrize("cost", [2**30, 1000, -2, 0, "x", True])
def test_an_absurd_cost_is_refused_before_it_is_paid(cost):
    by_passphrase(Person("correct horse")).set("openai", "default", KEY)
    paths().credentials_file.write_bytes(_changed(scrypt_cost=cost))
    person = Person("correct horse")
    unreadable(by_passphrase(person))
    assert person.asked == []


def test_a_failed_write_leaves_the_old_file_and_no_draft(monkeypatch):
    by_key_file().set("openai", "default", KEY)
    before = paths().credentials_file.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(Exception, match="No space left"):
        by_key_file().set("openai", "work", KEY)
    assert paths().credentials_file.read_bytes() == before
    names = {file.name for file in paths().data.iterdir()}
    assert names == {"credentials.enc", "credentials.enc.lock"}
