"""The key step: hidden input, where to get a key, and a live check before it counts.

The invariant: a key is only handed back, as a `Secret`; nothing here stores it, and what is
wrong with one is said without showing it.
"""

from opencode_gate.cli.wizard.questions import choose, hidden_text, open_text
from opencode_gate.cli.wizard.terminal import Terminal, plain_crumb
from opencode_gate.core.errors import CredentialError, GateError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.shape import checked_key, looks_like_another
from opencode_gate.session.options import Deeds, Offer, ProviderOption


def ask_key(
    option: ProviderOption,
    offer: Offer,
    deeds: Deeds,
    terminal: Terminal,
    *,
    entered: Secret | None,
) -> Secret | None:
    """Asks until there is a key that works or is kept all the same; `None` on Esc.

    `entered` is a key given earlier in this wizard, which Enter alone keeps.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """

    def problem_with(text: str) -> str | None:
        return key_problem(text, may_be_empty=entered is not None)

    while True:
        text = hidden_text(
            terminal,
            f"Key for {option.name}",
            top=_top(_help(option, offer, entered)),
            problem_with=problem_with,
        )
        if text is None:
            return None
        if not text.strip():
            return entered
        key = checked_key(text)
        verdict = _verdict(option, deeds, terminal, key)
        if verdict == "keep":
            return key
        if verdict == "back":
            return None


def ask_variables(option: ProviderOption, terminal: Terminal) -> dict[str, str] | None:
    """The settings the provider's address needs; empty where it needs none, `None` on Esc.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    given: dict[str, str] = {}
    for variable in option.missing_variables:
        text = open_text(
            terminal,
            f"{variable} for {option.name}",
            top=_top(["The provider's address contains it."]),
        )
        if text is None:
            return None
        given[variable] = text.strip()
    return given


def key_problem(text: str, *, may_be_empty: bool = False) -> str | None:
    """What shows, without asking anybody, that `text` is no key."""
    if not text.strip():
        return None if may_be_empty else "type or paste the key, or Esc to go back"
    try:
        checked_key(text)
    except CredentialError as error:
        return error.message
    return None


def words_of(error: GateError) -> str:
    """An error as one sentence with its hint."""
    return error.message if error.hint is None else f"{error.message} ({error.hint})"


def _top(lines: list[str]) -> str:
    return plain_crumb(2, "Key") + "".join(f"  {line}\n" for line in lines)


def _help(option: ProviderOption, offer: Offer, entered: Secret | None) -> list[str]:
    lines = []
    if option.key_page is not None:
        lines.append(f"Get one at {option.key_page}")
    lines.append(f"Checked now, kept in the {offer.key_store} when you start.")
    if option.key_variable is not None:
        lines.append(f"Or leave and set {option.key_variable}.")
    if entered is not None:
        lines.append(f"Enter alone keeps the one ending in {entered.last_four}.")
    return lines


def _verdict(option: ProviderOption, deeds: Deeds, terminal: Terminal, key: Secret) -> str:
    """`keep`, `again` or `back`, asked only where the check did not succeed."""
    from opencode_gate.cli.render import stderr_console

    try:
        with stderr_console().status(f"asking {option.name} whether this key works"):
            problem = deeds.check_key(option.id, key)
    except GateError as error:
        problem = words_of(error)
    if problem is None:
        return "keep"
    other = looks_like_another(key, option.id)
    if other is not None:
        problem += f"; it looks like a key of {other}"
    answer = choose(
        terminal,
        problem,
        {
            "again": "enter the key again",
            "keep": "keep this key all the same",
            "back": "go back",
        },
        top=plain_crumb(2, "Key"),
    )
    return "again" if answer is None else answer
