"""What the pages about budgets and the policy file tell a person to type does what they say."""

import re
import shlex
from pathlib import Path

import pytest

from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.core.errors import ConfigError
from opencode_gate.governance.policy import Customer, Team, VirtualKey
from opencode_gate.session.policy_changes import current_policy
from opencode_gate.session.policy_file import parse_policy
from opencode_gate.session.policy_shape import read_struct

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BUDGETS = (PAGES / "budgets.md").read_text(encoding="utf-8")
SERVE = (PAGES / "serve-a-team.md").read_text(encoding="utf-8")
POLICY_FILE = (PAGES / "policy-file.md").read_text(encoding="utf-8")


def lines(text: str, groups: str) -> list[str]:
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.S))
    return re.findall(rf"^ogate (?:{groups}) .*$", blocks, re.M)


def test_the_lines_about_budgets_and_teams_work(capsys) -> None:
    for line in lines(BUDGETS, "budgets|customers|teams|vkeys"):
        if "session" in line:
            continue
        assert main(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
    policy = current_policy(paths())
    assert policy.teams["core"].customer == "acme"
    assert policy.virtual_keys["anna"].budgets[0].usd == 75
    [user] = policy.users.values()
    assert user.budgets[0].at_end == "downgrade:claude-haiku-4-5"


def test_the_lines_that_begin_a_team_work_in_their_order(capsys) -> None:
    found = [line for line in lines(SERVE, "teams|vkeys") if "--copy-env" not in line]
    assert len(found) == 2
    for line in found:
        assert main(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)


def test_the_lines_in_the_table_work(capsys) -> None:
    for line in ("customers create acme", "teams create core --deny x", "vkeys create anna"):
        main(line.split())
    found = re.findall(r"\| `ogate ((?:vkeys|teams) .*?)` \|", BUDGETS)
    assert len(found) == 6
    for line in sorted(found, key=lambda line: "revoke" in line):
        words = [*shlex.split(line), *(["--yes"] if "revoke" in line else [])]
        assert main(words) == 0, (line, capsys.readouterr().err)


def test_the_file_on_the_page_is_a_policy_that_can_be_applied(tmp_path) -> None:
    [text] = re.findall(r"```toml\n(.*?)```", POLICY_FILE, re.S)
    policy = parse_policy(text, source="page", at_us=1)
    assert len(policy.teams["core"].budgets) == 2
    file = tmp_path / "rules.toml"
    file.write_text(text, encoding="utf-8")
    assert main(["policy", "apply", str(file), "--yes"]) == 0
    assert main(["policy", "export", str(file)]) == 0
    assert file.read_text(encoding="utf-8") == text


def test_every_key_there_is_has_its_place_on_the_page() -> None:
    from msgspec import structs

    from opencode_gate.governance.policy import Budget, RateLimit

    named = set(re.findall(r"`([a-z_.]+)`", POLICY_FILE))
    shapes = (Customer, Team, VirtualKey, Budget, RateLimit)
    keys = {field.name for shape in shapes for field in structs.fields(shape)}
    tables = {"models", "limits", "budgets"}
    assert keys - tables <= named
    assert {"models.allow", "models.deny", "models.mode"} <= named
    assert read_struct(Customer, {}, ()) == Customer()


def test_the_mistake_on_the_page_is_the_one_that_is_made() -> None:
    [message] = re.findall(r"^error: (.*)  \[bad-policy\]$", POLICY_FILE, re.M)
    budget = "[[teams.core.budgets]]\nwindow = 'day'\nusd = 1\n"
    text = "\n" * 9 + budget + budget.replace("day", "monthly")
    with pytest.raises(ConfigError) as caught:
        parse_policy(text, source="rules.toml", at_us=1)
    assert caught.value.message == message
