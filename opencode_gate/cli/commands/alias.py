"""`ogate alias`: plain `opencode`, typed by a person, goes through ogate.

The invariant: inside a session the alias does not exist, so nothing started there can start
itself again; programs never see an alias, only a person's shell does.
"""

from typing import Annotated

import typer

from opencode_gate.cli import shell_files
from opencode_gate.cli.render import Result
from opencode_gate.cli.shell_files import Shell

app = typer.Typer()

ShellName = Annotated[
    Shell | None, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell; yours.")
]

_POSIX = "case \"${OGATE_KEY:-}\" in ''|ogk-*) alias opencode='ogate run --' ;; esac"

_LINES: dict[Shell, str] = {
    "bash": _POSIX,
    "zsh": _POSIX,
    "fish": "string match -qr '^(ogk-.*)?$' -- \"$OGATE_KEY\"; and alias opencode 'ogate run --'",
    "powershell": "if (-not $env:OGATE_KEY -or $env:OGATE_KEY -like 'ogk-*') "
    "{ function opencode { ogate run -- @args } }",
}
"""The line for each shell. Inside a session `OGATE_KEY` is its token; a virtual key may stand there
in every shell of somebody who works through a gateway of others."""


@app.command()
def install(shell: ShellName = None) -> Result:
    """Let `opencode` mean `ogate run --` in every new shell."""
    chosen = shell or shell_files.current_shell()
    file = shell_files.start_file(chosen)
    is_new = shell_files.put_block(file, "alias", [_LINES[chosen]])
    return Result(
        data={},
        talk=[
            f"written: {file}" if is_new else f"already in {file}",
            f"open a new {chosen}; `ogate alias remove` takes it out again",
        ],
    )


@app.command()
def remove(shell: ShellName = None) -> Result:
    """Take the alias out again, of every shell unless one is named."""
    shells = shell_files.SHELLS if shell is None else (shell,)
    files = shell_files.files_with_block("alias", shells)
    for file in files:
        shell_files.take_block(file, "alias")
    return Result(data={}, talk=[f"removed from {file}" for file in files] or ["no alias found"])
