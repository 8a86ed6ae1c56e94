"""`ogate completion`: the completion script of a shell, shown or put in place.

The invariant: `install` may run any number of times; it replaces what it put there before and
touches nothing else.
"""

from pathlib import Path
from typing import Annotated

import typer

from opencode_gate.cli import render, shell_files
from opencode_gate.cli.render import Result
from opencode_gate.cli.shell_files import Shell

app = typer.Typer()

ShellName = Annotated[
    Shell | None, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell; yours.")
]


@app.command()
def show(shell: ShellName = None) -> Result:
    """Print the script, to put it somewhere yourself."""
    from opencode_gate.cli.completion_scripts import completion_script

    render.print_lines(completion_script(shell or shell_files.current_shell()).splitlines())
    return Result(data={})


@app.command()
def install(shell: ShellName = None) -> Result:
    """Put the script in place for every new shell."""
    chosen = shell or shell_files.current_shell()
    script = script_file(chosen)
    is_new = _write_script(chosen, script)
    changed = [script] if is_new else []
    if chosen != "fish":
        start_file = shell_files.start_file(chosen)
        if shell_files.put_block(start_file, "completion", _lines(chosen, script)):
            changed.append(start_file)
    talk = [f"written: {file}" for file in changed] or ["already in place"]
    _rebuild_index()
    return Result(data={}, talk=[*talk, f"open a new {chosen} to use it"])


def script_file(shell: Shell) -> Path:
    """Where the installed script of a shell lies; fish reads its own folder."""
    from opencode_gate.cli.completion_scripts import FILE_NAMES
    from opencode_gate.config.paths import paths

    if shell == "fish":
        return shell_files.fish_folder() / "completions" / "ogate.fish"
    return paths().data / "completion" / FILE_NAMES[shell]


def _write_script(shell: Shell, file: Path) -> bool:
    """Writes the script; false if it was there already, letter by letter.

    Raises:
        ConfigError: the folder cannot be written.
    """
    from opencode_gate.cli.completion_scripts import completion_script
    from opencode_gate.config.paths import private_folder
    from opencode_gate.core.errors import ConfigError

    text = completion_script(shell)
    try:
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            return False
        private_folder(file.parent)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError("folder-unwritable", f"cannot write {file}: {error.strerror}") from error
    return True


def _lines(shell: Shell, script: Path) -> list[str]:
    """What the start-up file says: nothing happens where the script is gone."""
    if shell == "powershell":
        quoted = "'" + str(script).replace("'", "''") + "'"
        return [f"if (Test-Path {quoted}) {{ . {quoted} }}"]
    import shlex

    quoted = shlex.quote(str(script))
    source = f"[ -r {quoted} ] && . {quoted}"
    if shell == "zsh":
        return ["(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }", source]
    return [source]


def _rebuild_index() -> None:
    from opencode_gate.cli import completion_index

    completion_index.rebuild()
