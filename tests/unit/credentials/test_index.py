"""The list of keys: one default a provider, nothing lost, nothing secret, clear when damaged."""

import json
import threading

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.core.errors import ConfigError, CredentialError, UsageError
from opencode_gate.credentials.entries import CredentialEntry
from opencode_gate.credentials.index import CredentialIndex


def entry(provider_id="openai", name="default", **facts):
    facts = {"store": "keyring", "last_four": "cdef", "added_at_us": 1, **facts}
    return CredentialEntry(provider_id=provider_id, name=name, **facts)


@pytest.fixture
def index():
    return CredentialIndex(paths())


def names(index, provider_id="openai"):
    return [(key.name, key.is_default) for key in CredentialIndex(paths()).entries(provider_id)]


def test_nothing_is_there_before_anything_is_added(index):
    assert index.entries() == ()
    assert index.default("openai") is None


def test_what_was_added_is_read_back_by_another_reader(index):
    added = index.add(entry(variable=None, last_used_at_us=None))
    assert CredentialIndex(paths()).entries() == (added,)


def test_the_first_key_is_the_default_and_a_second_is_not(index):
    index.add(entry())
    index.add(entry(name="work"))
    assert names(index) == [("default", True), ("work", False)]


def test_a_key_added_as_default_takes_over(index):
    index.add(entry())
    index.add(entry(name="work", is_default=True))
    assert names(index) == [("default", False), ("work", True)]


def test_defaults_of_other_providers_stay(index):
    index.add(entry())
    index.add(entry("anthropic", "work"))
    index.add(entry(name="work", is_default=True))
    assert names(index, "anthropic") == [("work", True)]


def test_the_default_can_be_moved(index):
    index.add(entry())
    index.add(entry(name="work"))
    index.set_default("openai", "work")
    assert names(index) == [("default", False), ("work", True)]


def test_the_oldest_inherits_when_the_default_is_removed(index):
    for name in ("a", "b", "c"):
        index.add(entry(name=name))
    assert index.remove("openai", "a").name == "b"
    assert names(index) == [("b", True), ("c", False)]
    index.remove("openai", "b")
    assert index.remove("openai", "c") is None


def test_a_renamed_key_keeps_all_else(index):
    index.add(entry(last_tested_at_us=7, last_test_result="ok"))
    renamed = index.rename("openai", "default", "home")
    assert (renamed.name, renamed.is_default, renamed.last_test_result) == ("home", True, "ok")


def test_a_taken_name_is_refused(index):
    index.add(entry())
    index.add(entry(name="work"))
    for change in (lambda: index.add(entry()), lambda: index.rename("openai", "work", "default")):
        with pytest.raises(CredentialError) as caught:
            change()
        assert caught.value.code == "key-exists"
    assert names(index) == [("default", True), ("work", False)]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a" * 65, "ä", "a\n"])
def test_what_cannot_be_a_name_is_refused(index, name):
    with pytest.raises(UsageError):
        index.add(entry(name=name))


def test_an_unknown_name_comes_with_the_names_there_are(index):
    index.add(entry(name="work"))
    for change in (index.require, index.remove, index.set_default):
        with pytest.raises(CredentialError) as caught:
            change("openai", "wrok")
        assert caught.value.code == "no-such-key"
        assert "work" in caught.value.details[0]


def test_a_key_typed_where_its_name_belongs_is_not_shown_again(index):
    key = "sk-ant-api03-0123456789"
    with pytest.raises(CredentialError) as caught:
        index.require("openai", key)
    error = caught.value
    assert "looks like a key" in error.message
    assert key not in f"{error.message} {error.hint} {error.details}"


def test_tags_are_kept(index):
    index.add(entry())
    index.add(entry("anthropic"))
    index.mark_used([("openai", "default"), ("gone", "x")], at_us=5)
    index.mark_tested("openai", "default", result="wrong-key", at_us=6)
    (openai, anthropic) = CredentialIndex(paths()).entries()
    assert (openai.last_used_at_us, openai.last_tested_at_us) == (5, 6)
    assert openai.last_test_result == "wrong-key"
    assert anthropic.last_used_at_us is None


def test_the_file_is_its_owners_alone(index):
    index.add(entry())
    assert paths().credentials_index.stat().st_mode & 0o777 == 0o600
    assert paths().data.stat().st_mode & 0o777 == 0o700


def test_two_writers_lose_nothing():
    """Each reads again under the lock, so both keys of two processes are there."""
    writers = [CredentialIndex(paths()) for _ in range(8)]
    for writer in writers:
        writer.entries()
    threads = [
        threading.Thread(target=writer.add, args=(entry(name=f"k{number}"),))
        for number, writer in enumerate(writers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(None)) == 8
    assert sum(is_default for _, is_default in names(None)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b'{"version": 1}',
        b'{"version": 1, "keys": [3]}',
        b'{"version": 1, "keys": [{"provider_id": "openai"}]}',
        b'{"version": 1, "keys": [{"provider_id": "o", "name": "n", "store": "cloud",'
        b' "added_at_us": 1}]}',
        b'{"version": 1, "keys": [{"provider_id": "o", "name": "n", "store": "env",'
        b' "added_at_us": 1, "last_used_at_us": "yesterday"}]}',
    ],
)
def test_a_damaged_file_is_named_and_left_alone(content):
    file = paths().credentials_index
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(CredentialError) as caught:
        CredentialIndex(paths()).add(entry())
    assert caught.value.code == "credentials-unreadable"
    assert str(file) in caught.value.message
    assert file.read_bytes() == content


def test_a_newer_file_is_refused_politely():
    file = paths().credentials_index
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"version": 2, "keys": []}))
    with pytest.raises(CredentialError, match="newer"):
        CredentialIndex(paths()).entries()


def test_fields_of_a_later_version_are_passed_over(index):
    index.add(entry())
    file = paths().credentials_index
    document = json.loads(file.read_text())
    document["keys"][0]["colour"] = "blue"
    file.write_text(json.dumps(document))
    assert CredentialIndex(paths()).default("openai").name == "default"


def test_a_folder_that_cannot_be_made_is_an_error_with_a_way_out(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OGATE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError) as caught:
        CredentialIndex(paths()).add(entry())
    assert caught.value.code == "folder-unwritable"
