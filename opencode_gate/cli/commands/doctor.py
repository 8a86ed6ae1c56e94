"""`ogate doctor`: what is wrong here, and the command that mends it."""

from typing import TYPE_CHECKING

from opencode_gate.cli.exit_codes import ExitCode
from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Fact, Facts, Result

if TYPE_CHECKING:
    from opencode_gate.cli.checks import Finding

_MARKS = {"ok": "✓", "note": "!", "bad": "✗"}
_STYLES = {"ok": "", "note": "yellow", "bad": "red"}


def command(as_json: AsJson = False) -> Result:
    """Look at everything ogate needs; each finding comes with the command that mends it.

    Exit status 1 if something keeps ogate from working.
    """
    import os
    from datetime import date

    import msgspec

    from opencode_gate.cli.checks import Surroundings, all_findings
    from opencode_gate.config.paths import paths

    findings = all_findings(Surroundings(paths=paths(), environ=os.environ, today=date.today()))
    is_bad = any(finding.level == "bad" for finding in findings)
    return Result(
        data={"findings": [msgspec.structs.asdict(finding) for finding in findings]},
        blocks=() if as_json else [Facts([_fact(finding) for finding in findings])],
        exit_code=ExitCode.CHECK_FAILED if is_bad else ExitCode.OK,
    )


def _fact(finding: "Finding") -> Fact:
    mend = f"\n→ {finding.mend}" if finding.mend else ""
    return Fact(
        f"{_MARKS[finding.level]} {finding.check}",
        finding.summary + mend,
        _STYLES[finding.level],
    )
