"""Where a session starts when nobody says, and what may stand above its configuration."""

import json
import os
import sqlite3
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from opencode_gate.agents.opencode.arguments import read_arguments
from opencode_gate.agents.opencode.auth import AuthFile
from opencode_gate.agents.opencode.folders import agent_folders
from opencode_gate.agents.opencode.locate import Installation
from opencode_gate.agents.opencode.user_config import UserConfig
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.settings import Settings
from opencode_gate.core.clock import SystemClock
from opencode_gate.core.errors import PolicyDenied, UsageError
from opencode_gate.credentials.resolve import CredentialSource
from opencode_gate.governance.policy import Budget, Rules
from opencode_gate.session.choices import Choice
from opencode_gate.session.discovery import UsableProvider
from opencode_gate.session.naming import RunRequest
from opencode_gate.session.plan import make_plan
from opencode_gate.session.run_rules import NO_RULES, RunRules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


def usable(provider_id: str) -> UsableProvider:
    row = ProviderRow(id=provider_id, name=provider_id, base_url=f"https://{provider_id}/v1")
    return UsableProvider(row=row, source=CredentialSource(kind="env", label="env"))


def planned(
    folder: Path,
    *,
    line="",
    chosen=None,
    remembered=None,
    agent=None,
    key_name=None,
    sign_ins=None,
    rules=NO_RULES,
    pure="",
    **user_config,
):
    environ = {
        "HOME": os.environ["HOME"],
        "WORK_KEY": "secret",
        "PATH": os.environ["PATH"],
        "OPENCODE_PURE": pure,
    }
    discovery = SimpleNamespace(
        catalogue=SimpleNamespace(
            providers=lambda: {},
            models=lambda _: {},
        ),
        index=None,
        folders=agent_folders(environ),
        auth=AuthFile(),
        user_config=UserConfig(**user_config),
        usable={name: usable(name) for name in ("openai", "groq")},
        sign_ins=sign_ins or {},
    )
    return make_plan(
        RunRequest(key_name=key_name),
        read_arguments(line.split()),
        chosen,
        remembered=remembered,
        discovery=discovery,
        settings=Settings(),
        agent=Installation(path=agent or Path("/absent"), version="1.18.33"),
        folder=folder,
        environ=environ,
        clock=SystemClock(),
        rules=rules,
    )


def last_used(folder: Path, provider_id: str, model_id: str) -> None:
    """Opencode's own record of a question in `folder`."""
    database = agent_folders({"HOME": os.environ["HOME"]}).data / "opencode.db"
    database.parent.mkdir(parents=True)
    with sqlite3.connect(database) as connection:
        connection.executescript(
            "CREATE TABLE session (id, parent_id, directory, time_updated);"
            "CREATE TABLE message (id, session_id, time_created, data);"
        )
        connection.execute("INSERT INTO session VALUES ('ses_1', NULL, ?, 1)", (str(folder),))
        model = {"providerID": provider_id, "modelID": model_id}
        data = json.dumps({"role": "user", "model": model})
        connection.execute("INSERT INTO message VALUES ('msg_1', 'ses_1', 1, ?)", (data,))


def test_a_later_start_goes_on_with_the_model_last_used_in_the_folder(folder):
    last_used(folder, "groq", "llama")
    remembered = Choice(provider_id="groq", model_id="other", small_model_id="tiny")
    plan = planned(folder, remembered=remembered)
    assert (plan.model, plan.small_model) == ("groq/llama", "groq/tiny")
    plan = planned(folder, remembered=Choice(provider_id="openai", small_model_id="nano"))
    assert (plan.model, plan.small_model) == ("groq/llama", None)


def test_before_any_question_it_is_the_remembered_choice(folder):
    plan = planned(folder, remembered=Choice(provider_id="openai", model_id="gpt-5"))
    assert plan.model == "openai/gpt-5"
    assert planned(folder).model is None


def test_a_model_that_cannot_be_reached_any_more_is_not_named(folder):
    last_used(folder, "gone", "m")
    assert planned(folder).model is None
    assert planned(folder, remembered=Choice(provider_id="groq", model_id="x")).model == "groq/x"


def test_the_users_configured_model_is_left_to_opencode(folder):
    last_used(folder, "groq", "llama")
    assert planned(folder, model="openai/gpt-5").model is None
    assert planned(folder, model="gone/gpt-5").model == "groq/llama"


def test_what_was_chosen_now_wins_over_everything(folder):
    last_used(folder, "groq", "llama")
    chosen = Choice(provider_id="openai", model_id="gpt-5")
    assert planned(folder, chosen=chosen, model="groq/x").model == "openai/gpt-5"


def test_a_variable_that_a_configured_key_is_taken_from_is_hidden(folder):
    plan = planned(folder, key_variables={"openai": ("WORK_KEY",), "other": ("HOME",)})
    assert plan.hidden == ("WORK_KEY",)


def test_only_what_an_administrator_really_changes_is_said(folder, tmp_path):
    agent = tmp_path / "opencode"
    managed = (tmp_path / "managed.json",)

    def answering(document: dict[str, object]) -> tuple[str, ...]:
        agent.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(document)}\nEND\n")
        agent.chmod(0o700)
        return planned(folder, agent=agent, managed=managed).warnings

    ours = {
        "enabled_providers": ["openai", "groq"],
        "provider": {
            name: {"options": {"baseURL": f"http://127.0.0.1:1/p/{name}/v1"}}
            for name in ("openai", "groq")
        },
    }
    assert answering(ours) == ()
    (warning,) = answering({**ours, "disabled_providers": ["groq"]})
    assert "provider groq is disabled" in warning
    assert str(managed[0]) in warning
    assert planned(folder).warnings == ()


@pytest.mark.parametrize("line", ["", "run -m openai/gpt-5 hi"])
def test_a_subscription_left_direct_is_never_routed_even_when_it_is_asked_for(folder, line):
    """Its own key would otherwise be used, hidden and billed in its place."""
    chosen = None if line else Choice(provider_id="openai", model_id="gpt-5")
    plan = planned(folder, line=line, chosen=chosen, sign_ins={"openai": "direct"})
    assert plan.direct == ("openai",)
    assert [row.id for row in plan.rows] == ["groq"]
    assert not plan.disable_default_plugins


def test_a_key_for_a_subscription_left_direct_is_refused(folder):
    chosen = Choice(provider_id="openai", model_id="gpt-5")
    with pytest.raises(UsageError, match="subscription"):
        planned(folder, chosen=chosen, key_name="work", sign_ins={"openai": "direct"})


def test_a_key_for_one_subscription_says_that_another_is_out_of_use(folder):
    plan = planned(folder, sign_ins={"openai": "key", "github-copilot": "direct"})
    assert plan.disable_default_plugins
    (warning,) = plan.warnings
    assert "github-copilot" in warning
    assert planned(folder, sign_ins={"openai": "key"}).warnings == ()


HARD = RunRules(own=Rules(budgets=(Budget(window="session", usd=Decimal(5)),)))


def test_under_a_hard_rule_nothing_may_be_left_direct(folder):
    """A subscription's requests are none that could be refused or counted."""
    sign_ins = {"openai": "direct"}
    assert planned(folder, sign_ins=sign_ins).direct == ("openai",)
    with pytest.raises(PolicyDenied) as raised:
        planned(folder, sign_ins=sign_ins, rules=HARD)
    assert raised.value.hint == "ogate providers edit openai --subscription key"
    assert planned(folder, sign_ins={"openai": "key"}, rules=HARD).direct == ()


def test_a_subscription_without_a_key_is_left_out_by_the_command_that_is_named(folder):
    """The hint has to work also for whoever has no key to put in its place."""
    with pytest.raises(PolicyDenied):
        planned(folder, sign_ins={"github-copilot": None}, rules=HARD)
    plan = planned(folder, sign_ins={"github-copilot": "key"}, rules=HARD)
    assert (plan.direct, [row.id for row in plan.rows]) == ((), ["openai", "groq"])


def test_under_a_hard_rule_sign_in_plugins_are_off_or_nothing_starts(folder):
    """`--pure` and its variable start Opencode without them."""
    plugins = ("opencode-acme-auth",)
    assert planned(folder, auth_plugins=plugins).rules is NO_RULES
    with pytest.raises(PolicyDenied, match="the budget of this session"):
        planned(folder, auth_plugins=plugins, rules=HARD)
    assert planned(folder, auth_plugins=plugins, rules=HARD, line="--pure").rules is HARD
    assert planned(folder, auth_plugins=plugins, rules=HARD, pure="1").rules is HARD


def test_under_a_hard_rule_an_administrator_may_not_send_requests_elsewhere(folder, tmp_path):
    """What only switches a provider off is no way round."""
    agent = tmp_path / "opencode"

    def answering(document: dict[str, object]):
        agent.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(document)}\nEND\n")
        agent.chmod(0o700)
        return planned(folder, agent=agent, managed=(tmp_path / "managed.json",), rules=HARD)

    ours = {
        "enabled_providers": ["openai", "groq"],
        "provider": {
            name: {"options": {"baseURL": f"http://127.0.0.1:1/p/{name}/v1"}}
            for name in ("openai", "groq")
        },
    }
    assert len(answering({**ours, "disabled_providers": ["groq"]}).warnings) == 1
    with pytest.raises(PolicyDenied) as raised:
        answering({**ours, "enabled_providers": ["openai", "groq", "xai"]})
    assert "provider xai is enabled" in raised.value.details[0]
    with pytest.raises(PolicyDenied):
        agent.write_text("#!/bin/sh\nexit 1\n")
        planned(folder, agent=agent, managed=(tmp_path / "managed.json",), rules=HARD)
