"""`ogate vkeys`, `teams`, `customers`: made, changed, removed; a secret is shown once."""

import json
import re
import shlex
from datetime import UTC, datetime, timedelta

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.governance.policy import ModelRules, Policy, RateLimit
from opencode_gate.governance.virtual_keys import key_parts, verify
from opencode_gate.session.policy_changes import current_policy

TOKEN = re.compile(r"ogk-[A-Za-z0-9]{12}-[A-Za-z0-9]{48}")


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture
def run(capsys):
    def run_line(line):
        status = main(shlex.split(line))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run_line


@pytest.fixture
def document(run):
    def read(line):
        status, out, err = run(f"{line} --json")
        assert (status, err) == (0, "")
        return json.loads(out)

    return read


def policy() -> Policy:
    return current_policy(paths())


def files() -> bytes:
    home = paths().data.parent
    return b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())


def test_the_secret_is_shown_once_and_kept_nowhere(run) -> None:
    status, out, err = run("vkeys create anna")
    token = out.strip()
    parts = key_parts(token)
    assert (status, parts is not None) == (0, True)
    assert "shown this once" in err
    key = policy().virtual_keys["anna"]
    assert key.public_id == parts.public_id
    assert verify(key.secret_hash, parts.secret)
    for line in ("vkeys list", "vkeys show anna", "policy show", "policy export"):
        for spelling in (line, f"{line} --json"):
            _, out, err = run(spelling)
            assert parts.secret not in out + err
            assert parts.secret[:12] not in out + err
    assert parts.secret.encode() not in files()


def test_the_json_of_a_new_key_has_its_secret_beside_it(document) -> None:
    found = document("vkeys create anna")
    assert TOKEN.fullmatch(found["secret"])
    assert found["vkey"]["public_id"] == key_parts(found["secret"]).public_id
    assert "secret_hash" not in json.dumps(found)


def test_copy_env_prints_lines_a_shell_evaluates(run) -> None:
    status, out, err = run("vkeys create ci --copy-env --gateway https://gate.example.com/")
    assert (status, err) == (0, "")
    lines = dict(
        line.removeprefix("export ").split("=", 1)
        for line in out.splitlines()
        if not line.startswith("#")
    )
    [token] = set(TOKEN.findall(out))
    assert lines == {
        "OGATE_KEY": token,
        "OPENAI_BASE_URL": "https://gate.example.com/p/openai/v1",
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": "https://gate.example.com/p/anthropic",
        "ANTHROPIC_API_KEY": token,
        "GOOGLE_GEMINI_BASE_URL": "https://gate.example.com/p/google",
        "GEMINI_API_KEY": token,
    }


@pytest.mark.parametrize(
    "options",
    [
        "--copy-env --json",
        "--gateway http://x",
        "--copy-env --gateway nowhere",
        "--copy-env --gateway ftp://x",
        "--rpm 0",
        "--rpm many",
        "--concurrent -1",
        "--tpm 1.5",
        "--allow ''",
        "--deny ' x'",
        "--tag ''",
        "--team nobody",
        "--expires soon",
        "--expires 2020-01-01",
        "--expires 0d",
        "--time-zone Berlin",
    ],
)
def test_an_option_that_makes_no_sense_makes_no_key(run, options) -> None:
    status, out, err = run(f"vkeys create anna {options}")
    assert status in (2, 3)
    assert (out, "error: " in err) == ("", True)
    assert policy().virtual_keys == {}


BAD_NAMES = [
    *("", " ", "a b", "a/b", "a'b", 'a"b', "x'; DROP TABLE policy_documents; --", "a\nb", "-a"),
    *(".a", "a\x00b", "a\u202eb", "a\u200bb", "😀", "a:b", "%s", "${HOME}", "../x", "x" * 65),
]


@pytest.mark.parametrize("group", ["vkeys", "teams", "customers"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_name_is_refused(run, group, name) -> None:
    for verb in ("create", "show"):
        status = main([group, verb, name])
        assert status == 2
    assert policy() == Policy()


@pytest.mark.parametrize("group", ["vkeys", "teams", "customers"])
@pytest.mark.parametrize("name", ["a", "Zoë", "名前", "дмитрий", "a.b_c-d@e", "007", "x" * 64])
def test_names_of_all_scripts_work_everywhere(run, document, group, name) -> None:
    assert main([group, "create", name]) == 0
    run("policy show")
    assert [one["name"] for one in document(f"{group} list")[group]] == [name]
    assert document(f"{group} show '{name}'")[group.removesuffix("s")]["name"] == name
    assert run(f"budgets set month 5 --{group.removesuffix('s')} '{name}'")[0] == 0
    verb = "revoke" if group == "vkeys" else "remove"
    assert run(f"{group} {verb} '{name}' --yes")[0] == 0
    assert policy() == Policy(revision=3)


def test_an_accent_typed_in_two_ways_is_one_name(run) -> None:
    run("teams create zo\u00eb")
    assert "owner-exists" in run("teams create zoe\u0308")[2]
    assert run("vkeys create anna --team zoe\u0308")[0] == 0
    assert policy().virtual_keys["anna"].team == "zo\u00eb"


def test_a_key_of_that_name_is_there_already(run) -> None:
    run("vkeys create anna")
    status, out, err = run("vkeys create anna")
    assert (status, out) == (2, "")
    assert "[owner-exists]" in err
    assert "hint: ogate vkeys set anna" in err


def test_options_become_rules(run, document) -> None:
    run("customers create acme --tpm 2M")
    run("teams create core --customer acme --time-zone Europe/Berlin")
    run(
        "vkeys create anna --team core --allow 'anthropic/*' --allow openai/gpt-5 --deny '*opus*'"
        " --rpm 60 --tpm 200k --concurrent 4 --tag berlin --tag intern"
    )
    key = policy().virtual_keys["anna"]
    assert key.models == ModelRules(allow=("anthropic/*", "openai/gpt-5"), deny=("*opus*",))
    assert key.limits == (
        RateLimit(requests=60, per="minute"),
        RateLimit(tokens=200_000, per="minute"),
        RateLimit(concurrent=4),
    )
    assert (key.team, key.tags) == ("core", ("berlin", "intern"))
    found = document("vkeys show anna")["vkey"]
    assert found["models"] == {
        "allow": ["anthropic/*", "openai/gpt-5"],
        "deny": ["*opus*"],
        "mode": "enforce",
    }
    assert [limit["amount"] for limit in found["limits"]] == [60, 200_000, 4]
    assert document("teams show core")["team"]["members"] == ["anna"]
    assert document("customers show acme")["customer"]["members"] == ["core"]


def test_set_changes_what_is_said_and_clear_takes_back(run) -> None:
    run("teams create core")
    run("vkeys create anna --team core --allow 'a/*' --rpm 60 --concurrent 4 --tag x --expires 9d")
    before = policy().virtual_keys["anna"]
    assert run("vkeys set anna --rpm 30 --deny '*b*'")[0] == 0
    key = policy().virtual_keys["anna"]
    assert key.limits == (RateLimit(requests=30, per="minute"), RateLimit(concurrent=4))
    assert key.models == ModelRules(allow=("a/*",), deny=("*b*",))
    assert (key.team, key.tags, key.expires_at) == ("core", ("x",), before.expires_at)
    line = "vkeys set anna --expires never"
    for option in ("allow", "deny", "rpm", "concurrent", "team", "tag"):
        line += f" --clear {option}"
    assert run(line)[0] == 0
    key = policy().virtual_keys["anna"]
    assert (key.limits, key.models, key.team, key.tags, key.expires_at) == (
        (),
        None,
        None,
        (),
        None,
    )
    assert (key.public_id, key.secret_hash) == (before.public_id, before.secret_hash)


def test_set_without_a_change_and_clear_of_nothing_known_are_told(run) -> None:
    run("vkeys create anna")
    assert "nothing to change" in run("vkeys set anna")[2]
    _, _, err = run("vkeys set anna --clear alow")
    assert "hint: --clear allow" in err
    assert "contradict" in run("vkeys set anna --allow 'a/*' --clear allow")[2]


def test_a_pattern_that_is_but_a_name_is_pointed_out(run) -> None:
    for line in ("vkeys create a --deny opus", "teams create b --allow opus"):
        assert "'*opus*' is each" in run(line)[2]
    assert "'*sonnet*' is each" in run("vkeys set a --deny sonnet")[2]
    assert "is each" not in run("vkeys create c --deny '*opus*' --allow 'anthropic/claude-x'")[2]


def test_off_and_on_again(run, document) -> None:
    run("vkeys create anna")
    assert run("vkeys disable anna")[1] == "vkey anna is disabled\n"
    assert document("vkeys show anna")["vkey"]["state"] == "disabled"
    assert run("vkeys enable anna")[1] == "vkey anna is active\n"


def test_rotating_makes_the_old_secret_worthless_and_keeps_the_rest(run) -> None:
    _, out, _ = run("vkeys create anna --rpm 60")
    old, before = key_parts(out.strip()), policy().virtual_keys["anna"]
    _, out, _ = run("vkeys rotate anna")
    new, after = key_parts(out.strip()), policy().virtual_keys["anna"]
    assert new.public_id == old.public_id
    assert verify(after.secret_hash, new.secret)
    assert not verify(after.secret_hash, old.secret)
    assert after.limits == before.limits


def test_a_day_still_counts_and_an_expired_key_needs_a_new_end(run, monkeypatch) -> None:
    day = (datetime.now(UTC) + timedelta(days=5)).date()
    run(f"vkeys create anna --expires {day}")
    assert policy().virtual_keys["anna"].expires_at == f"{day + timedelta(days=1)}T00:00:00+00:00"
    from opencode_gate.cli import owner_verbs

    later_us = round((datetime.now(UTC) + timedelta(days=7)).timestamp() * 1e6)
    monkeypatch.setattr(owner_verbs, "now_us", lambda: later_us)
    assert " expired " in run("vkeys list")[1]
    status, out, err = run("vkeys rotate anna")
    assert (status, out) == (2, "")
    assert "hint: ogate vkeys rotate anna --expires 30d" in err
    assert "--expires 30d" in run("vkeys enable anna")[2]
    assert run("vkeys rotate anna --expires 30d")[0] == 0
    assert " active " in run("vkeys list")[1]


def test_revoking_asks_and_is_for_ever(run) -> None:
    run("vkeys create anna")
    status, _, err = run("vkeys revoke anna")
    assert status == 2
    assert "hint: ogate vkeys revoke anna --yes" in err
    assert run("vkeys revoke anna --yes") == (0, "vkey anna is revoked\n", "")
    status, _, err = run("vkeys show anna")
    assert (status, "[no-such-owner]" in err) == (2, True)


def test_what_others_belong_to_is_not_removed(run) -> None:
    run("customers create acme")
    run("teams create core --customer acme")
    run("vkeys create anna --team core")
    for line, mend in (
        ("customers remove acme --yes", "ogate teams set core --clear customer"),
        ("teams remove core --yes", "ogate vkeys set anna --clear team"),
    ):
        status, out, err = run(line)
        assert (status, out) == (2, "")
        assert "[still-in-use]" in err
        assert f"hint: {mend}" in err
        assert run(mend.removeprefix("ogate "))[0] == 0
    assert run("teams remove core --yes")[0] == 0
    assert run("customers remove acme --yes")[0] == 0
    assert list(policy().virtual_keys) == ["anna"]


@pytest.mark.parametrize("group", ["vkeys", "teams", "customers"])
def test_nobody_yet_says_how_to_begin(run, document, group) -> None:
    status, out, err = run(f"{group} list")
    assert (status, out) == (0, "")
    assert f"`ogate {group} create NAME` makes one" in err
    assert document(f"{group} list")[group] == []


def test_screens_name_models_limits_and_budgets(run) -> None:
    run("teams create core --allow 'anthropic/*' --deny '*opus*' --rpm 1")
    run("vkeys create anna --team core")
    run("budgets set month 500 --team core")
    run("budgets set total 1k --tokens --team core")
    lines = run("teams list")[1].splitlines()
    assert lines[0].split() == ["name", "customer", "keys", "models", "limits", "budgets"]
    assert lines[1].endswith(
        "1   anthropic/*, but not *opus*   1 request a minute   $500 a month, 1,000 tokens in all"
    )
    shown = run("teams show core")[1]
    assert "members" in shown
    assert "budget    month $0 of $500.00; begins anew " in shown


def test_the_shell_is_offered_names_that_are_there(run) -> None:
    run("teams create core")
    run("vkeys create anna --team core")
    assert run("__complete vkey a")[1] == "anna\tcore\n"
    run("vkeys revoke anna --yes")
    assert run("__complete vkey a")[1] == ""
    assert run("__complete team")[1] == "core\t\n"
