"""The completion scripts in real shells: what a person gets for Tab."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from opencode_gate.cli.completion_scripts import FILE_NAMES

COMPLETIONS = Path(__file__).parent.parent.parent / "completions"
INDEX = """\
provider\tanthropic\tAnthropic
provider\tanyscale\tAnyscale
provider\topenai\tOpenAI
model\tanthropic/claude-sonnet-5\tClaude Sonnet 5
model\tollama/qwen3:8b\tQwen 3: 8B
model\tollama/qwen3:32b\tQwen 3: 32B
key\twork\tanthropic
session\t01JDAAAAAAAAAAAAAAAAAAAAAA\t2026-11-21 10:00 repo
"""

CASES = [
    ("ogate us", ["usage"]),
    ("ogate keys ro", ["rotate"]),
    ("ogate run --prov", ["--provider"]),
    ("ogate --prov", ["--provider"]),
    ("ogate run --provider an", ["anthropic", "anyscale"]),
    ("ogate run --provider=an", ["anthropic", "anyscale"]),
    ("ogate --model anthropic/", ["anthropic/claude-sonnet-5"]),
    ("ogate run --provider openai --model oll", ["ollama/qwen3:8b", "ollama/qwen3:32b"]),
    ("ogate run --model ollama/qwen3:3", ["ollama/qwen3:32b"]),
    ("ogate run --key w", ["work"]),
    ("ogate run --summary j", ["json"]),
    ("ogate providers show op", ["openai"]),
    ("ogate keys test anthropic w", ["work"]),
    ("ogate sessions show 01", ["01JDAAAAAAAAAAAAAAAAAAAAAA"]),
    ("ogate sessions show --json 01", ["01JDAAAAAAAAAAAAAAAAAAAAAA"]),
    ("ogate usage --source o", ["ogate", "opencode"]),
    ("ogate completion install fi", ["fish"]),
    ("ogate run --provider zzz", []),
]


@pytest.fixture
def environment(tmp_path: Path, isolated_home: Path) -> dict[str, str]:
    """A shell's environment: the installed `ogate` on PATH and an index with known values."""
    index = isolated_home / "ogate" / "cache" / "completion.tsv"
    index.parent.mkdir(parents=True)
    index.write_text(INDEX)
    (tmp_path / "work").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "TERM": "dumb"}


def _shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash_offers(environment, tmp_path, line, expected) -> None:
    """The function bash calls for Tab leaves the expected words, cut where bash cuts them."""
    script = f"""
        source {COMPLETIONS / FILE_NAMES["bash"]}
        COMP_LINE={line!r} COMP_POINT={len(line)}
        _ogate
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [_shell("bash"), "--norc", "-c", script],
        env=environment,
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    kept = line.rpartition(":")[0] + ":" if ":" in line.rpartition(" ")[2] else ""
    cut = kept.rpartition(" ")[2]
    assert [cut + word for word in done.stdout.split()] == expected


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish_offers(environment, tmp_path, line, expected) -> None:
    """`complete -C` is what fish itself asks at Tab; descriptions come with the values."""
    done = subprocess.run(
        [
            _shell("fish"),
            "--no-config",
            "-c",
            f"source {COMPLETIONS / FILE_NAMES['fish']}; complete -C {line!r}",
        ],
        env=environment,
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    offered = [found.partition("\t")[0] for found in done.stdout.splitlines()]
    option = "--provider=" if "--provider=" in line else ""
    assert sorted(word.removeprefix(option) for word in offered) == sorted(expected)


def test_fish_shows_what_a_value_is(environment) -> None:
    """The description of a provider stands beside it."""
    line = f"source {COMPLETIONS / FILE_NAMES['fish']}; complete -C 'ogate run --provider op'"
    done = subprocess.run(
        [_shell("fish"), "--no-config", "-c", line],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "openai\tOpenAI\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("ogate us", "ogate usage "),
        ("ogate run --provider op", "ogate run --provider openai "),
        ("ogate run --model ollama/qwen3:3", "ogate run --model ollama/qwen3:32b "),
        ("ogate run --provider=op", "ogate run --provider=openai "),
        ("ogate sessions show 01", "ogate sessions show 01JDAAAAAAAAAAAAAAAAAAAAAA "),
        ("ogate --prov", "ogate --provider "),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_in_a_real_shell(environment, tmp_path, shell, typed, completed) -> None:
    """Tab on the line completes the word in place, and the shell runs the completed line."""
    start = {
        "bash": ["--norc", "--noprofile", "-i"],
        "zsh": ["-f", "-i"],
    }[shell]
    child = pexpect.spawn(
        _shell(shell), start, env=environment, cwd=tmp_path / "work", encoding="utf-8", timeout=20
    )
    child.setwinsize(40, 200)
    if shell == "zsh":
        child.sendline("autoload -Uz compinit; compinit -u -d ./zcompdump; PROMPT='> '")
    script = COMPLETIONS / FILE_NAMES[shell]
    child.sendline(
        f'source {script}; ogate() {{ if [ "$1" = __complete ]; then command ogate '
        "\"$@\"; else printf 'ran:%s;' ogate \"$@\"; echo :end; fi }; echo rea''dy"
    )
    child.expect("ready\r\n")
    child.send(f"{typed}\t")
    child.send("\r")
    child.expect(r"(ran:[^\r\n]*):end")
    words = child.match.group(1).removeprefix("ran:").rstrip(";").split(";ran:")
    child.close(force=True)
    assert words == completed.split()
