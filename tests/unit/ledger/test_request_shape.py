"""The key of the prompt hashes, and what a record learns from a body."""

import json
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opencode_gate.ledger.request_shape import KEY_BYTES, RequestShapes, installation_key
from tests.support.ledger_records import an_exchange

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "violet"}]}).encode()


def test_an_installation_keeps_its_key(tmp_path: Path):
    """Else no two sessions could be compared."""
    file = tmp_path / "data" / "key"
    key = installation_key(file)
    assert len(key) == KEY_BYTES
    assert installation_key(file) == key
    assert installation_key(tmp_path / "other" / "key") != key
    assert [path.name for path in file.parent.iterdir()] == ["key"]


@pytest.mark.skipif(sys.platform == "win32", reason="no file modes")
def test_the_key_is_its_owners_alone(tmp_path: Path):
    file = tmp_path / "data" / "key"
    installation_key(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_gateways_that_start_together_agree_on_the_key(tmp_path: Path):
    file = tmp_path / "data" / "key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: installation_key(file), range(64)))
    assert keys == {file.read_bytes()}


def test_a_key_that_was_cut_short_is_replaced(tmp_path: Path):
    file = tmp_path / "key"
    file.write_bytes(b"short")
    key = installation_key(file)
    assert len(key) == KEY_BYTES
    assert installation_key(file) == key


def test_without_a_place_for_it_a_key_lasts_for_the_session(tmp_path: Path):
    """A read-only folder must not stop a session."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    first = installation_key(blocked / "key")
    assert len(first) == KEY_BYTES
    assert installation_key(blocked / "key") != first


def test_a_record_learns_its_parts_and_nothing_of_the_text():
    shapes = RequestShapes(b"k" * 32)
    exchange = shapes.shaped(an_exchange(), BODY)
    assert exchange.parts is not None
    assert exchange.tool_set is None
    assert shapes.tool_sets == {}
    assert "violet" not in repr(exchange)


def test_a_set_of_tools_is_measured_once():
    shapes = RequestShapes(b"k" * 32)
    body = json.dumps({**json.loads(BODY), "tools": [{"name": "bash"}]}).encode()
    first = shapes.shaped(an_exchange(), body)
    assert shapes.tool_sets == {first.tool_set: {"bash": len('{"name": "bash"}')}}
    shapes.tool_sets.clear()
    assert shapes.shaped(an_exchange(), body).tool_set == first.tool_set
    assert shapes.tool_sets == {}
