"""Short questions with a handful of answers, and hidden input, by questionary.

Every one is erased when it is answered; Esc gives `None`, Ctrl-C raises `KeyboardInterrupt`.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from prompt_toolkit.styles import Style

from opencode_gate.cli.wizard.terminal import (
    STYLE,
    Fragments,
    Terminal,
    real_terminal,
    with_leaving_keys,
)

if TYPE_CHECKING:
    from questionary import Question

_KEYS: Fragments = [("class:dim", "enter go on · esc back ")]


def choose(
    terminal: Terminal, message: str, answers: Mapping[str, str], *, top: str = ""
) -> str | None:
    """One of a few answers, given as value → words; the first is under the pointer."""
    import questionary

    question = questionary.select(
        message,
        choices=[questionary.Choice(words, value=value) for value, words in answers.items()],
        qmark=f"{top}?",
        instruction=" ",
        pointer="❯",
        style=_plain_top(),
        input=terminal.input,
        output=terminal.output,
        erase_when_done=True,
    )
    return _ask(question)


def hidden_text(
    terminal: Terminal, message: str, *, top: str, problem_with: Callable[[str], str | None]
) -> str | None:
    """Text that is shown as stars; `problem_with` says what is wrong with it, if anything."""
    import questionary

    return _ask(
        questionary.password(
            message,
            qmark=f"{top}?",
            validate=lambda text: problem_with(text) or True,
            validate_while_typing=False,
            style=_plain_top(),
            rprompt=_KEYS,
            input=terminal.input,
            output=terminal.output,
            erase_when_done=True,
        )
    )


def open_text(terminal: Terminal, message: str, *, top: str) -> str | None:
    """Text that may be seen; empty is refused."""
    import questionary

    return _ask(
        questionary.text(
            message,
            qmark=f"{top}?",
            validate=lambda text: bool(text.strip()) or "it is needed to find the server",
            validate_while_typing=False,
            style=_plain_top(),
            rprompt=_KEYS,
            input=terminal.input,
            output=terminal.output,
            erase_when_done=True,
        )
    )


def ask_subscription(
    provider_name: str, *, terminal: Terminal | None = None
) -> Literal["direct", "key"] | None:
    """How a provider with a stored sign-in (a plan, not a key) is to be used; `None` on Esc.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    answer = choose(
        terminal or real_terminal(),
        f"Opencode is signed in to {provider_name} with a subscription. Use",
        {
            "direct": "the subscription, past the gateway (covered by the plan, usage shown)",
            "key": "my API key, through the gateway (metered, costs money)",
        },
    )
    return answer if answer in ("direct", "key") else None  # type: ignore[return-value]


def ask_install(*, terminal: Terminal | None = None) -> Literal["npm", "private"] | None:
    """Where to install Opencode, which was not found; `None` means not at all.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    answer = choose(
        terminal or real_terminal(),
        "Opencode is not installed. Install it",
        {
            "npm": "for everything: npm install -g opencode-ai",
            "private": "for ogate alone, a private copy in its data folder",
            "no": "not now",
        },
    )
    return answer if answer in ("npm", "private") else None  # type: ignore[return-value]


def _ask(question: "Question") -> str | None:
    with_leaving_keys(question.application, None)
    answer: str | None = question.unsafe_ask()
    return answer


def _plain_top() -> Style:
    """The wizard's style where the question mark carries the lines above it."""
    return Style([*STYLE.style_rules, ("qmark", "fg:default nobold")])
