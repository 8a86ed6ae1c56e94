"""The entry point: what is answered at once, how the line is split, what an ending means.

The idea: nothing heavy is imported before it is needed, so `--version` and the completion of
values never see Typer. The line is split at the first `--` here, because the parser would drop
it: what is before belongs to `ogate`, what is behind reaches Opencode as it is.
The invariant: every way to end goes through `main`, which knows exactly one exit status for it.
"""

import io
import sys

TYPE_CHECKING = False
"""As in `typing`, which is a third of the time of `ogate --version`; checkers know the name."""

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from opencode_gate.cli.exit_codes import ExitCode

_HELP = ("-h", "--help")


def main(argv: "Sequence[str] | None" = None) -> int:
    """Runs one command line (without the program's name) and returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv is None:
            _open_closed_streams()
        _forgive_encodings()
        status = _run(arguments)
        sys.stdout.flush()
        if argv is None:
            _leave(status)
    except KeyboardInterrupt:
        return _exit_code().INTERRUPTED
    except BrokenPipeError:
        _forget(sys.stdout)
        return _exit_code().BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the one top handler: whatever arrives here ends the program
        return report(error, with_traceback="--debug" in _split(arguments)[0])
    return status


def _run(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        from opencode_gate import __version__

        sys.stdout.write(f"ogate {__version__}\n")
        return 0
    if arguments[:1] == ["__complete"]:
        from opencode_gate.cli import completion_index

        return completion_index.answer(arguments[1:])
    own, tail = _split(arguments)
    # What was copied from a refusal may have U+2060 in its names: see `wire.refusals`.
    own = _named([word.replace("\u2060", "") for word in own if word != "--debug"])
    from opencode_gate.cli import registry

    takes_none = own[0] != "run" and own[0] in registry.COMMANDS and not set(_HELP) & set(own)
    if tail is not None and takes_none:
        from opencode_gate.core.errors import UsageError

        raise UsageError(
            "usage", f"`ogate {own[0]}` takes nothing behind `--`", hint=f"ogate {own[0]} --help"
        )
    registry.keep_tail(tail or (), is_bare=not arguments)
    return _ended(own, _outcome(own))


def _split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """What is before the first `--`, and what is behind it (`None` where there is none)."""
    if "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _named(own: list[str]) -> list[str]:
    """The line with its command: one that has none, or starts with an option, is for `run`."""
    if not own or (own[0].startswith("-") and own[0] not in _HELP):
        return ["run", *own]
    return own


def _outcome(own: list[str]) -> object:
    """What the command returns; `run` is read without Typer where its line is plain."""
    from opencode_gate.cli import run_line

    if own[0] == "run":
        line = run_line.read(own[1:])
        if line is not None:
            _start_quickly()
            from opencode_gate.cli.commands.run import command

            return command(line)
    import typer
    from typer.exceptions import TyperException

    from opencode_gate.cli import command_group

    try:
        with command_group.root().make_context("ogate", list(own)) as context:
            return context.command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        return _exit_code().INTERRUPTED
    except TyperException as error:
        raise command_group.usage_error(error) from error


def _start_quickly() -> None:
    """Takes out of a session's start what only costs it time."""
    import gc

    # What is loaded now stays; looking through it again and again finds nothing.
    gc.set_threshold(50_000, 20, 20)
    if "msgspec" not in sys.modules:
        # It prefers `typing_extensions`, which loads the whole of `inspect`; Python has had by
        # itself what it takes from there since 3.11. `None` there means: not installed
        # (https://docs.python.org/3/reference/import.html#the-module-cache).
        former = sys.modules.get("typing_extensions")
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]
        try:
            import msgspec  # noqa: F401
        finally:
            del sys.modules["typing_extensions"]
            if former is not None:
                sys.modules["typing_extensions"] = former


def _ended(own: list[str], outcome: object) -> int:
    """Prints what the command returned; what it may have changed is offered by the shell."""
    from opencode_gate.cli import completion_index, registry, render

    if isinstance(outcome, render.Result):
        outcome = render.render(outcome, as_json="--json" in own)
    entry = registry.COMMANDS.get(own[0])
    if entry is not None and entry.changes_values and not set(_HELP) & set(own):
        completion_index.keep_fresh(
            after_session=own[0] == "run", after_policy=own[0] in registry.OWNER_COMMANDS
        )
    return outcome if isinstance(outcome, int) else 0


def _leave(status: int) -> None:
    """Ends this process at once, if nobody in it is still at work.

    Taking the interpreter down module by module would be waited for, and does nothing.
    """
    threading = sys.modules.get("threading")
    if threading is not None:
        mine = threading.current_thread()
        if any(not one.daemon for one in threading.enumerate() if one is not mine):
            return
    import os

    sys.stderr.flush()
    os._exit(status)


def report(error: Exception, *, with_traceback: bool) -> int:
    """Says what went wrong on stderr, if that is read; the traceback only with `--debug`."""
    import errno

    from opencode_gate.core.errors import ConfigError, GateError

    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = ConfigError("folder-unwritable", f"what was to be written has no room: {error}")
    try:
        _say(error, with_traceback=with_traceback)
    except OSError:
        _forget(sys.stderr)
    return error.exit_code if isinstance(error, GateError) else _exit_code().BUG


def _say(error: Exception, *, with_traceback: bool) -> None:
    from opencode_gate.cli import render
    from opencode_gate.core.errors import GateError

    if with_traceback:
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, GateError):
        render.render_error(error)
        return
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    sys.stderr.write(f"error: this is a bug in ogate: {summary}  [bug]\n")
    if not with_traceback:
        sys.stderr.write("  hint: run the same line with --debug and report what it prints\n")


def _open_closed_streams() -> None:
    """Makes streams that are closed (`<&-`) such that nobody reads or writes.

    Otherwise there is no object for them, and the next file or socket takes their place.
    """
    import os

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is that of the stream; children have it too.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(nowhere, True)
            setattr(sys, name, open(nowhere, mode, encoding="utf-8"))  # noqa: SIM115


def _forgive_encodings() -> None:
    """A terminal that cannot show a character, or a name that is no text, costs that character."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _forget(stream: "TextIO") -> None:
    """Points a stream nowhere, so that the interpreter's last flush stays quiet."""
    from opencode_gate.cli import render

    render.forget(stream)


def _exit_code() -> "type[ExitCode]":
    from opencode_gate.cli.exit_codes import ExitCode

    return ExitCode


if __name__ == "__main__":
    sys.exit(main())
