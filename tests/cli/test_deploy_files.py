"""What `deploy/` starts is a command line that `ogate serve` understands."""

import json
import re
import shlex
from pathlib import Path

import pytest

from opencode_gate.cli.main import main

DEPLOY = Path(__file__).parents[2] / "deploy"


def _started() -> dict[str, list[str]]:
    unit = (DEPLOY / "ogate.service").read_text(encoding="utf-8")
    image = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ExecStart=\S+/ogate (.*)$", unit, re.M)
    (words,) = re.findall(r"^CMD (\[.*\])$", image, re.M)
    return {"ogate.service": shlex.split(line), "Containerfile": json.loads(words)}


@pytest.mark.parametrize("name", ["ogate.service", "Containerfile"])
def test_its_options_exist_and_ask_for_tls(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With a certificate that is none it gets as far as reading it, and no further."""
    words = _started()[name]
    none = tmp_path / "none.pem"
    none.write_text("no certificate")
    known = [str(none) if word.startswith(("/tls/", "${CREDENTIALS")) else word for word in words]
    assert known.count(str(none)) == 2
    assert main(known) == 2
    assert "is no certificate" in capsys.readouterr().err
