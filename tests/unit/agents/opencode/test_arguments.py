"""What Opencode's arguments mean must be read as Opencode itself reads them."""

import pytest

from opencode_gate.agents.opencode.arguments import read_arguments


@pytest.mark.parametrize(
    "line",
    [
        "",
        "/some/folder",
        "-c",
        "-m openai/gpt-5",
        "run hello",
        "--print-logs run hello",
        "run -m openai/gpt-5 hello world",
        "serve --port 4096",
        "web",
        "acp",
        "pr 12",
        "agent create",
        "github run",
        "--prompt models",
        "-- models",
    ],
)
def test_lines_that_may_call_a_model_need_the_gateway(line):
    assert read_arguments(line.split()).needs_gateway


@pytest.mark.parametrize(
    "line",
    [
        "--version",
        "-v",
        "--help",
        "run --help",
        "models",
        "--pure models anthropic",
        "-m x/y models",
        "auth list",
        "providers login",
        "upgrade",
        "uninstall",
        "stats --days 3",
        "session list",
        "export ses_1",
        "import file.json",
        "db path",
        "debug config",
        "mcp list",
        "agent list",
        "github install",
        "plugin some-plugin",
        "completion",
        "--get-yargs-completions opencode r",
        "attach http://localhost:4096",
        "run --attach http://localhost:4096 hi",
    ],
)
def test_lines_that_call_no_model_here_run_untouched(line):
    assert not read_arguments(line.split()).needs_gateway


@pytest.mark.parametrize(
    ("line", "is_command"),
    [
        ("-c models", False),
        ("--auto models", False),
        ("-cm models", False),
        ("--no-replay models", True),
        ("--agent plan models", True),
        ("--print-logs false models", True),
    ],
)
def test_an_unknown_option_before_the_command_takes_the_next_word(line, is_command):
    """Checked against `opencode … --help` of the real program, which names the command it saw."""
    assert (read_arguments(line.split()).command == "models") is is_command


def test_model_session_and_agent_are_read_in_every_spelling():
    for line in (
        "run -m a/b/c:free -s ses_1 --agent plan hi",
        "run --model=a/b/c:free --session=ses_1 --agent=plan hi",
        "-m a/b/c:free run hi -s ses_1 --agent plan",
        "run -m=a/b/c:free -s=ses_1 --agent plan -- hi",
    ):
        seen = read_arguments(line.split())
        assert (seen.model, seen.session, seen.agent) == ("a/b/c:free", "ses_1", "plan")
        assert seen.command == "run"


def test_words_behind_a_double_dash_are_never_options():
    seen = read_arguments(["run", "--", "-m", "a/b"])
    assert seen.model is None
    assert seen.needs_gateway


def test_continue_takes_no_value_once_the_command_is_known():
    seen = read_arguments(["run", "-c", "go on"])
    assert seen.continue_last
    assert seen.command == "run"
    assert read_arguments(["-c", "folder"]).directory == "folder"


def test_the_folder_is_found_where_each_command_keeps_it():
    assert read_arguments(["sub/folder", "-m", "a/b"]).directory == "sub/folder"
    assert read_arguments(["run", "--dir", "x", "hi"]).directory == "x"
    assert read_arguments(["acp", "--cwd", "y"]).directory == "y"
    assert read_arguments(["run", "hi"]).directory is None


def test_only_what_draws_on_the_terminal_is_a_tui():
    assert read_arguments([]).is_tui
    assert read_arguments(["attach", "http://h"]).is_tui
    assert read_arguments(["run", "-i"]).is_tui
    assert not read_arguments(["run", "hi"]).is_tui
    assert not read_arguments(["--help"]).is_tui
    assert not read_arguments(["serve"]).is_tui


def test_an_attached_run_names_the_other_process():
    assert read_arguments(["run", "--attach", "http://h:1", "hi"]).attach == "http://h:1"
    assert read_arguments(["attach", "http://h:1"]).attach == "http://h:1"


def test_files_take_several_words():
    seen = read_arguments(["run", "-f", "a.txt", "b.txt", "-m", "a/b"])
    assert seen.command == "run"
    assert seen.model == "a/b"


def test_nonsense_is_left_to_opencode():
    for argv in (["-m"], ["--"], ["-"], ["--="], ["-m", "-s"], ["--agent"], [""]):
        read_arguments(argv)
