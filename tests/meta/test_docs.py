"""What the documents say is so: links lead somewhere, commands exist, lists are complete."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

from opencode_gate.cli import registry
from opencode_gate.cli.command_tree import Node, Parameter, tree
from opencode_gate.cli.main import main
from opencode_gate.cli.summary_view import summary_document
from opencode_gate.core.errors import CODES
from opencode_gate.governance.policy import Budget, Owner
from opencode_gate.governance.standing import BudgetStanding
from opencode_gate.ledger.totals import total_of
from opencode_gate.session.summary import ConversationTotals, ModelTotals, Summary
from tests.support.ledger_records import a_conversation, a_session, an_exchange

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


class Link(NamedTuple):
    page: Path
    target: str

    @property
    def file(self) -> Path:
        path = self.target.partition("#")[0]
        return (self.page.parent / path).resolve() if path else self.page


def links() -> Iterator[Link]:
    """Every link that stays inside the project."""
    for page in PAGES:
        for target in _LINK.findall(prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield Link(page, target)


def test_every_relative_link_leads_somewhere() -> None:
    broken = [
        f"{name_of(link.page)}: {link.target}"
        for link in links()
        if not link.file.is_file()
        or ("#" in link.target and link.target.partition("#")[2] not in anchors(link.file))
    ]
    assert broken == []


def test_every_row_of_a_table_has_the_cells_of_its_head() -> None:
    """A `|` ends a cell wherever it stands, also between backticks
    (https://github.github.com/gfm/#tables-extension-); what is too much is not shown.
    """
    wrong = []
    for page in PAGES:
        head = None
        for line in prose(page).splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
            head = cells if head is None else head
            if cells != head and cells is not None:
                wrong.append(f"{name_of(page)}: {line}")
            head = None if cells is None else head
    assert wrong == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    leads_to: dict[Path, set[Path]] = {}
    for link in links():
        leads_to.setdefault(link.page, set()).add(link.file)
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += leads_to.get(page, ())
    assert [name_of(page) for page in PAGES if page not in reached] == []


def test_the_readme_fits_its_purpose() -> None:
    """One screen that sells it; what needs more room has a page."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 70
    assert "docs/images/session.svg" in text


def test_contributing_stays_short() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_place_on_the_machine_it_was_written_on(page) -> None:
    places = r"(?<![\w.])/(?:tmp|work|root|home/(?!USER))\b"
    assert re.findall(places, page.read_text(encoding="utf-8")) == []


# Commands


@pytest.fixture(scope="module")
def root() -> Node:
    return tree()


def test_every_command_has_its_place_in_the_reference(root) -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^#+ (ogate.*)$", text, re.MULTILINE))
    assert {" ".join(("ogate", *node.path)) for node in root.walk()} == headings
    assert {f"ogate {name}" for name in registry.COMMANDS} <= headings


def command_lines(page: Path) -> Iterator[str]:
    """Every line of a page that starts with `ogate`, in blocks and inside sentences."""
    text = page.read_text(encoding="utf-8")
    for language, block in _FENCE.findall(text):
        if language in ("", "sh", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                if re.match(r"ogate(?: |$)", line):
                    yield line
    for code in _INLINE.findall(prose(page)):
        if code.startswith("ogate "):
            yield code


def own_words(line: str) -> list[str]:
    """What `ogate` itself reads of a line: nothing behind `--`, a pipe or a comment."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word == "--" or set(word) <= set("|<>;&()"):
            break
        words.append(word)
    return words[1:]


def problem_with(line: str, root: Node) -> str | None:
    """What `ogate` would not understand about a line."""
    node, rest = root, own_words(line)
    while rest and (child := next((c for c in node.children if c.path[-1] == rest[0]), None)):
        node, rest = child, rest[1:]
    if node.path == () and rest == ["--version"]:
        return None
    options = {name: option for option in node.options for name in option.names}
    positional = 0
    while rest:
        word, *rest = rest
        name, equals, value = word.partition("=")
        if word in ("…", "..."):
            continue
        if not word.startswith("-"):
            positional += 1
        elif name not in options:
            return f"{' '.join(node.path)} has no {name}"
        elif options[name].takes_value:
            if not equals:
                if not rest:
                    return f"{name} lacks its value"
                value, *rest = rest
            if not is_a_choice(value, options[name]):
                return f"{value} is no choice of {name}"
    if node.children and node.path and positional:
        return f"{' '.join(node.path)} has no such command"
    most = 0 if node.children else len(node.arguments)
    if positional > most and not any(argument.is_repeated for argument in node.arguments):
        return f"{' '.join(node.path) or 'ogate'} takes {most} arguments"
    return None


def is_a_choice(value: str, option: Parameter) -> bool:
    """Alternatives may be written `direct|key`, a place to be filled in in capitals."""
    return not option.choices or value == "…" or set(value.split("|")) <= set(option.choices)


WRITTEN_BY_HAND = [page for page in PAGES if page.name != "cli.md"]
"""The reference of the commands is made from the commands themselves."""


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=name_of)
def test_every_command_line_is_one_that_ogate_understands(page, root) -> None:
    problems = {line: problem_with(line, root) for line in command_lines(page)}
    assert {line: problem for line, problem in problems.items() if problem} == {}


@pytest.mark.parametrize(
    "line",
    [
        "ogate fly",
        "ogate run --fast",
        "ogate run --summary pie",
        "ogate keys paint",
        "ogate keys test a b c",
        "ogate usage --since",
    ],
)
def test_a_line_that_makes_no_sense_would_be_seen(line, root) -> None:
    assert problem_with(line, root) is not None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_named_exists(page) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(block for _, block in _FENCE.findall(text))
    named = re.findall(r"(?:^| )make ([a-z0-9-]+)", blocks, re.MULTILINE)
    named += [code[5:] for code in _INLINE.findall(prose(page)) if code.startswith("make ")]
    assert set(named) <= targets


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"make {target}" in text for target in ("run", "demo", "test", "install"))


# Lists that must be complete


def required_packages() -> set[str]:
    groups = PROJECT["dependency-groups"].values()
    named = [*PROJECT["project"]["dependencies"], *(name for group in groups for name in group)]
    return {re.split(r"[^\w-]", name, maxsplit=1)[0] for name in named}


def test_every_dependency_has_its_reason() -> None:
    text = (DOCS / "decisions" / "dependencies.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", text, re.MULTILINE)
    names = [name for name, _ in explained]
    assert len(names) == len(set(names))
    assert set(names) == required_packages()


def test_the_layers_described_are_the_layers_checked() -> None:
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    checked = [
        [name for name in re.split(r"[ |]+", line) if not name.startswith("(")]
        for line in contract["layers"]
    ]
    text = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("<!-- layers -->")[2].partition("<!-- /layers -->")[0]
    described = [
        re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.strip().splitlines()[2:]
    ]
    assert described == checked


def test_every_decision_is_listed() -> None:
    decisions = sorted(page.name for page in (DOCS / "decisions").glob("[0-9]*.md"))
    text = (DOCS / "decisions" / decisions[0]).read_text(encoding="utf-8")
    assert [name for name in decisions[1:] if f"]({name})" not in text] == []
    numbers = [int(name[:4]) for name in decisions]
    assert numbers == list(range(1, len(decisions) + 1))


def raised_codes() -> Iterator[tuple[str, str]]:
    """The first argument of every error of ours that is made in the source, and where."""
    modules = {
        file: ast.parse(file.read_text(encoding="utf-8"))
        for file in (ROOT / "opencode_gate").rglob("*.py")
    }
    nodes = [(file.name, node) for file, module in modules.items() for node in ast.walk(module)]
    classes = [node for _, node in nodes if isinstance(node, ast.ClassDef)]
    ours = {"GateError"}
    while more := {
        found.name
        for found in classes
        if found.name not in ours
        and any(isinstance(base, ast.Name) and base.id in ours for base in found.bases)
        and not any(getattr(part, "name", None) == "__init__" for part in found.body)
    }:
        ours |= more
    for file, node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ours:
            for first in node.args[:1]:
                if isinstance(first, ast.Constant):
                    yield str(first.value), file


def test_every_code_that_is_raised_is_one_that_is_explained() -> None:
    """A code that is not in the table would turn a clear refusal into a bug."""
    raised = set(raised_codes())
    assert len({code for code, _ in raised}) > 20
    assert [(code, file) for code, file in sorted(raised) if code not in CODES] == []


# The document others parse


def shape(value: object) -> object:
    """The members of a document, all the way down, without their values."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    return [shape(member) for member in value] if isinstance(value, list) else None


def a_summary() -> Summary:
    session = a_session()
    exchanges = [an_exchange(session_id=session.id)]
    totals = total_of(exchanges)
    return Summary(
        session=session,
        totals=totals,
        models=(
            ModelTotals(
                provider_name="practice",
                request_model="scripted",
                response_model="scripted",
                totals=totals,
            ),
        ),
        conversations=(ConversationTotals(record=a_conversation(session.id), totals=totals),),
        budgets=(
            BudgetStanding(
                owner=Owner("session", session.id),
                budget=Budget(window="session", usd=Decimal(5)),
                start_us=0,
                resets_at_us=None,
                time_zone="UTC",
                spent=0,
                held=0,
            ),
        ),
    )


def test_the_document_described_is_the_document_written() -> None:
    text = (DOCS / "how-to" / "use-in-scripts-and-ci.md").read_text(encoding="utf-8")
    described = next(block for language, block in _FENCE.findall(text) if language == "json")
    assert shape(json.loads(described)) == shape(summary_document(a_summary()))


def test_the_amounts_in_the_document_described_add_up() -> None:
    text = (DOCS / "how-to" / "use-in-scripts-and-ci.md").read_text(encoding="utf-8")
    document = json.loads(next(block for lang, block in _FENCE.findall(text) if lang == "json"))
    for parts in (document["models"], document["conversations"]):
        for name, total in document["totals"].items():
            assert [part[name] for part in parts] == [total]


def test_the_members_of_the_usage_document_are_described(capsys) -> None:
    assert main(["usage", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    text = (DOCS / "how-to" / "use-in-scripts-and-ci.md").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("| `ogate usage --json`"))
    assert set(document) - {"version"} <= set(_INLINE.findall(line))
