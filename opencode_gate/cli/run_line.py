"""The options of `ogate run`, and a reading of its line that needs no parser.

The idea: a session is what is started most, so its line is read without loading Typer, which
would take longer than everything the launcher itself does. What is not plainly an option and its
value is left to Typer: help, mistakes, anything unusual. The invariant: both read this one table,
and where `read` understands a line, Typer understands the same, by test.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

SummaryForm: TypeAlias = Literal["table", "json", "off"]


class RunLine(NamedTuple):
    """The options as they were given."""

    provider: str | None = None
    model: str | None = None
    small_model: str | None = None
    key: str | None = None
    budget: str | None = None
    vkey: str | None = None
    gateway: str | None = None
    insecure: bool = False
    dry_run: bool = False
    install: bool = False
    summary: SummaryForm | None = None
    summary_file: str | None = None
    no_input: bool = False


class Option(NamedTuple):
    """How an option is shown; one without `metavar` and `choices` is a switch."""

    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    is_file: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether it takes no value."""
        return self.metavar is None and not self.choices


NO_INPUT = "Never ask: a missing choice is an error."

OPTIONS: Mapping[str, Option] = {
    "provider": Option("Where to start.", "ID"),
    "model": Option("Model, or provider/model, to start with.", "MODEL"),
    "small_model": Option("Model for titles and the like.", "MODEL"),
    "key": Option("Which of the provider's keys to use.", "NAME"),
    "budget": Option("What this session may cost at most.", "USD"),
    "vkey": Option("The virtual key whose rules apply too.", "NAME"),
    "gateway": Option("Go through a gateway others run, or `own`.", "URL"),
    "insecure": Option("With --gateway: plain HTTP is meant."),
    "dry_run": Option("Show what would be started, and stop."),
    "install": Option("If Opencode is missing, install a private copy of it."),
    "summary": Option("How the account is shown.", choices=("table", "json", "off")),
    "summary_file": Option("Write the account as JSON too.", "FILE", is_file=True),
    "no_input": Option(NO_INPUT),
}
"""By field of `RunLine`, in the order help shows them."""


def spelled(field: str) -> str:
    """The option as it is typed."""
    return "--" + field.replace("_", "-")


_FIELDS = {spelled(field): field for field in OPTIONS}


def read(words: Sequence[str]) -> RunLine | None:
    """The options of a line (without `run`), `None` where a parser has to look at it."""
    found: dict[str, str | bool] = {}
    rest = iter(words)
    for word in rest:
        name, sign, value = word.partition("=")
        field = _FIELDS.get(name)
        if field is None or field in found or (sign and OPTIONS[field].is_switch):
            return None
        given = _value(OPTIONS[field], value if sign else None, rest)
        if given is None:
            return None
        found[field] = given
    return RunLine(**found)  # type: ignore[arg-type]


def _value(option: Option, value: str | None, rest: Iterator[str]) -> str | bool | None:
    if option.is_switch:
        return True
    if value is None:
        value = next(rest, "")
    # Empty, or looking like another option: what that means is the parser's to say.
    if not value or value.startswith("-") or (option.choices and value not in option.choices):
        return None
    return value
