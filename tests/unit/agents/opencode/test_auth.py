"""Opencode's stored credentials are read as Opencode reads them, and never shown."""

import json
from pathlib import Path

from opencode_gate.agents.opencode.auth import read_auth
from opencode_gate.core.secrets import Secret

STORED = {
    "groq": {"type": "api", "key": "gsk_secret_of_groq"},
    "openai": {"type": "oauth", "refresh": "r", "access": "a", "expires": 1},
    "https://corp.example/": {"type": "wellknown", "key": "TOKEN", "token": "t"},
    "empty": {"type": "api", "key": ""},
    "odd": 5,
}


def test_keys_and_sign_ins_are_told_apart(tmp_path: Path):
    file = tmp_path / "auth.json"
    file.write_text(json.dumps(STORED))
    auth = read_auth(file, {})
    assert auth.keys == {"groq": Secret("gsk_secret_of_groq")}
    assert auth.oauth == ("openai",)
    assert "gsk_secret" not in repr(auth)


def test_the_environment_replaces_the_file(tmp_path: Path):
    file = tmp_path / "auth.json"
    file.write_text(json.dumps(STORED))
    auth = read_auth(file, {"OPENCODE_AUTH_CONTENT": '{"x":{"type":"api","key":"k"}}'})
    assert set(auth.keys) == {"x"}


def test_an_absent_or_broken_file_is_an_empty_one(tmp_path: Path):
    file = tmp_path / "auth.json"
    assert read_auth(file, {}).keys == {}
    for text in ("", "{", "[]", "null"):
        file.write_text(text)
        assert read_auth(file, {}).keys == {}
