"""With an existing Opencode set-up the first session starts where Opencode would."""

import json
from pathlib import Path

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.config.settings import Settings
from opencode_gate.session.choices import Choice
from opencode_gate.session.discovery import discover
from opencode_gate.session.starting_point import starting_point


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "my-repo"
    folder.mkdir()
    return folder


def found(home: Path, project: Path, **environ: str) -> Choice | None:
    around = {"HOME": str(home), **environ}
    discovery = discover(paths(), Settings(), around, folder=project, probe_local=False)
    return starting_point(discovery, project, around)


def recently_used(home: Path, *models: tuple[str, str]) -> None:
    file = home / ".local" / "state" / "opencode" / "model.json"
    file.parent.mkdir(parents=True)
    recent = [{"providerID": provider, "modelID": model} for provider, model in models]
    file.write_text(json.dumps({"recent": recent}))


def configured(home: Path, **settings: str) -> None:
    file = home / ".config" / "opencode" / "opencode.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(settings))


def test_newcomer_has_no_starting_point(isolated_home: Path, project: Path) -> None:
    """Nothing of Opencode's: the wizard asks."""
    assert found(isolated_home, project) is None


def test_configured_model_is_offered_with_its_small_model(
    isolated_home: Path, project: Path
) -> None:
    """What the configuration names comes before what was chosen last elsewhere."""
    configured(
        isolated_home,
        model="anthropic/claude-sonnet-4-5",
        small_model="anthropic/claude-haiku-4-5",
    )
    recently_used(isolated_home, ("openai", "gpt-5"))
    keys = {"ANTHROPIC_API_KEY": "sk-ant-0123456789", "OPENAI_API_KEY": "sk-0123456789"}
    assert found(isolated_home, project, **keys) == Choice(
        provider_id="anthropic",
        model_id="claude-sonnet-4-5",
        small_model_id="claude-haiku-4-5",
    )


def test_a_model_without_a_usable_provider_is_passed_over(
    isolated_home: Path, project: Path
) -> None:
    """No key, or no such model: the next candidate counts, and another's small model does not."""
    configured(isolated_home, model="anthropic/claude-sonnet-4-5", small_model="anthropic/x")
    recently_used(isolated_home, ("openai", "no-such-model"), ("openai", "gpt-5"))
    assert found(isolated_home, project, OPENAI_API_KEY="sk-0123456789") == Choice(
        provider_id="openai", model_id="gpt-5"
    )
