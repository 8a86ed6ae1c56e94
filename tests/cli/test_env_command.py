"""`ogate env opencode`: a configuration that leads to a served gateway, without the key."""

import json
from pathlib import Path

from tests.support.launcher import run
from tests.support.served_gateway import put_key, served


def test_it_prints_a_configuration_that_works_and_no_key(tmp_path: Path) -> None:
    """The providers of the gateway, its address, and the name of the variable."""
    key = put_key("ada")
    keys = {"OPENAI_API_KEY": "sk-live-of-the-team"}
    with served(tmp_path, **keys) as gateway:
        there = ("env", "opencode", "--gateway", gateway.url)
        plain = run(tmp_path, *there, OGATE_KEY=key)
        document = json.loads(run(tmp_path, *there, "--json", OGATE_KEY=key).stdout)
        shell = run(tmp_path, *there, "--shell", OGATE_KEY=key)
        refused = run(tmp_path, *there)
    assert plain.returncode == 0, plain.stderr
    config = json.loads(plain.stdout)
    options = config["provider"]["openai"]["options"]
    assert options["baseURL"] == f"{gateway.url}/p/openai/v1"
    assert options["apiKey"] == "{env:OGATE_KEY}"
    assert "practice" not in config["provider"]
    assert document["opencode_json"] == config
    assert json.loads(document["variables"]["OPENCODE_CONFIG_CONTENT"]) == config
    assert shell.stdout.startswith("export OPENCODE_CONFIG_CONTENT='{")
    assert len(shell.stdout.splitlines()) == 1
    assert "OGATE_KEY=ogk-" in plain.stderr
    for said in (plain, shell):
        assert key not in said.stdout + said.stderr
    assert refused.returncode == 4
    assert "[missing-credential]" in refused.stderr
