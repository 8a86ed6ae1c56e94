"""The real Opencode in a home of its own, started on a configuration that this project wrote.

`OGATE_TEST_OPENCODE` names the program; without it the one on PATH is used. It is read when this
module is imported, because every test starts with a bare environment.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from opencode_gate.agents.opencode.configuration import (
    config_text,
    local_origin,
    merge_config,
    move_models,
    session_config,
    user_content,
)
from opencode_gate.agents.opencode.environment import agent_environment
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.secrets import Secret

_NAMED = os.environ.get("OGATE_TEST_OPENCODE") or shutil.which("opencode")
_PATH = os.environ.get("PATH", os.defpath)

TOKEN = "ogs-launch-token-of-a-test"
MODEL = {
    "name": "M1",
    "tool_call": True,
    "limit": {"context": 100_000, "output": 4_000},
    "cost": {"input": 1, "output": 2},
}


def opencode_program() -> str:
    """The program, or a failure that says how to get one."""
    if not _NAMED or not Path(_NAMED).exists():
        pytest.fail(
            "these tests drive the real Opencode: set OGATE_TEST_OPENCODE or put it on PATH "
            "(npm install opencode-ai@1.18.33)"
        )
    return _NAMED


@dataclass(slots=True)
class OpencodeHome:
    """A user with a home and a project, and what Opencode is told in it."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "user"

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def database(self) -> Path:
        return self.home / ".local/share/opencode/opencode.db"

    @property
    def auth_file(self) -> Path:
        return self.home / ".local/share/opencode/auth.json"

    def write(self, file: Path, value: object) -> Path:
        """A file with `value` as JSON, or as it is if it is text."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return file

    def user_environ(self) -> dict[str, str]:
        """What the user's shell has, before `ogate` changes anything."""
        return {
            "PATH": _PATH,
            "HOME": str(self.home),
            "TMPDIR": str(self.root / "tmp"),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "NPM_CONFIG_OFFLINE": "true",
            **self.environ,
        }

    def run(
        self,
        arguments: Sequence[str],
        rows: Sequence[ProviderRow],
        *,
        port: int,
        models: Mapping[str, Mapping[str, dict[str, object]]] | None = None,
        direct: Sequence[str] = (),
        without_key: Collection[str] = (),
        hidden: Collection[str] = (),
        disable_default_plugins: bool = False,
        moves_models: bool = False,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Opencode's answer to one command line, with a gateway said to be on `port`."""
        for folder in (self.home, self.project, self.root / "tmp", self.root / "run"):
            folder.mkdir(parents=True, exist_ok=True)
        environ = self.user_environ()
        config = session_config(
            rows, origin=local_origin(port), models=models, direct=direct, without_key=without_key
        )
        models_path = None
        if moves_models:
            config, catalogue = move_models(config, {})
            models_path = self.write(self.root / "run/models.json", catalogue)
        child = agent_environment(
            environ,
            config_json=config_text(merge_config(user_content(environ), config)),
            config_path=self.write(self.root / "run/opencode.json", config_text(config)),
            launch_token=Secret(TOKEN),
            hidden=hidden,
            disable_default_plugins=disable_default_plugins,
            models_path=models_path,
        )
        return subprocess.run(
            [opencode_program(), *arguments],
            cwd=self.project,
            env=child,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def resolved_config(
        self, rows: Sequence[ProviderRow], *, port: int, **options: object
    ) -> dict[str, object]:
        """The configuration Opencode itself says is in force."""
        done = self.run(["debug", "config"], rows, port=port, **options)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
