"""The four steps, driven by keystrokes through a pipe: where each key leads and what is stored."""

from collections.abc import Callable

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from opencode_gate.cli.wizard import ask
from opencode_gate.cli.wizard.terminal import Terminal
from opencode_gate.session.choices import Choice
from tests.support.wizard_driver import GOOD_KEY, RecordedDeeds, offer

ENTER, ESC, TAB, DOWN, CTRL_C, CTRL_U = "\r", "\x1b", "\t", "\x1b[B", "\x03", "\x15"

Press = Callable[..., Choice]


@pytest.fixture
def deeds() -> RecordedDeeds:
    return RecordedDeeds()


class Interrupted(Exception):
    """The wizard was still asking when the keys were used up and Ctrl-C came."""


@pytest.fixture
def press(deeds: RecordedDeeds) -> Press:
    """Runs the wizard on the keys given, with a Ctrl-C behind them."""

    def run(*keys: str, start: Choice | None = None) -> Choice:
        with create_pipe_input() as pipe:
            pipe.send_text("".join(keys) + CTRL_C)
            try:
                return ask(offer(), deeds, start=start, terminal=Terminal(pipe, DummyOutput()))
            except KeyboardInterrupt as interrupt:
                raise Interrupted from interrupt

    return run


def test_provider_and_model_are_picked_and_the_small_model_is_proposed(press: Press) -> None:
    """Three Enters lead from nothing to a session; nobody is asked for the small model."""
    assert press(ENTER, ENTER, ENTER) == Choice(
        provider_id="anthropic", model_id="claude-sonnet-5", small_model_id="claude-haiku-5"
    )


def test_remembered_choice_costs_one_enter(press: Press, deeds: RecordedDeeds) -> None:
    """A known provider and model show the last screen at once and come back unchanged."""
    start = Choice(provider_id="openai", model_id="claude-haiku-5", small_model_id=None)
    assert press(ENTER, start=start) == start
    assert deeds.done == []


def test_single_model_is_not_asked_for(press: Press) -> None:
    """What can be found out is not asked: practice has one model."""
    choice = press("practice", ENTER, ENTER)
    assert (choice.provider_id, choice.model_id) == ("practice", "scripted")


@pytest.mark.parametrize(
    ("start", "keys"),
    [
        (Choice(provider_id="anthropic"), [ENTER, ENTER]),
        (Choice(provider_id="anthropic", model_id="gone"), [ENTER, ENTER]),
        (Choice(provider_id="nobody", model_id="x"), [ENTER, ENTER, ENTER]),
        (Choice(provider_id="amazon-bedrock"), [ENTER, ENTER, ENTER]),
        (Choice(provider_id="ollama", model_id="x"), ["anthropic", ENTER, ENTER, ENTER]),
    ],
)
def test_only_what_is_missing_is_asked(press: Press, start: Choice, keys: list[str]) -> None:
    """A provider alone asks for the model; ids that do not exist are asked again."""
    assert press(*keys, start=start).model_id == "claude-sonnet-5"


def test_new_key_is_checked_at_once_and_stored_only_on_start(
    press: Press, deeds: RecordedDeeds
) -> None:
    """The order of deeds: check, then (after Enter on the last screen) store."""
    press("groq", ENTER, GOOD_KEY, ENTER, ENTER, ENTER)
    assert deeds.done == ["check groq …abcd", "store groq …abcd"]


@pytest.mark.parametrize("seen", range(4))
def test_ctrl_c_stores_nothing_wherever_it_comes(
    press: Press, deeds: RecordedDeeds, seen: int
) -> None:
    """`KeyboardInterrupt` in each step, and no key in any store."""
    steps = ["groq" + ENTER, GOOD_KEY + ENTER, ENTER]
    with pytest.raises(Interrupted):
        press(*steps[:seen])
    assert not [deed for deed in deeds.done if deed.startswith("store")]


def test_refused_key_can_be_entered_again(press: Press, deeds: RecordedDeeds) -> None:
    """A wrong key is said to be wrong and the next one counts."""
    press("groq", ENTER, "sk-wrong-0123456789", ENTER, ENTER, GOOD_KEY, ENTER, ENTER, ENTER)
    assert deeds.done == ["check groq …6789", "check groq …abcd", "store groq …abcd"]


def test_refused_key_can_be_kept_all_the_same(press: Press, deeds: RecordedDeeds) -> None:
    """Without a network a check proves nothing; the person decides."""
    press("groq", ENTER, "sk-wrong-0123456789", ENTER, DOWN, ENTER, ENTER, ENTER)
    assert deeds.done[-1] == "store groq …6789"


def test_refused_key_can_be_given_up(press: Press, deeds: RecordedDeeds) -> None:
    """Going back from a refused key leads to the providers, and the key is forgotten."""
    keys = ["groq", ENTER, "sk-wrong-0123456789", ENTER, DOWN, DOWN, ENTER]
    assert press(*keys, CTRL_U, "practice", ENTER, ENTER).provider_id == "practice"
    assert deeds.done == ["check groq …6789"]


def test_failed_store_keeps_the_last_screen_open(press: Press, deeds: RecordedDeeds) -> None:
    """A locked keyring does not lose the key: Enter tries again."""
    deeds.storing_fails = 1
    press("groq", ENTER, GOOD_KEY, ENTER, ENTER, ENTER, ENTER)
    assert deeds.done == ["check groq …abcd", "store groq …abcd"]


def test_missing_variables_are_asked_before_the_key(press: Press, deeds: RecordedDeeds) -> None:
    """A provider whose address has a gap is asked for what fills it."""
    press("workers", ENTER, "acc-1", ENTER, GOOD_KEY, ENTER, ENTER, ENTER)
    assert deeds.done == [
        "check workers …abcd",
        'variables workers {"CLOUDFLARE_ACCOUNT_ID": "acc-1"}',
        "store workers …abcd",
    ]


def test_escape_goes_back_one_step_and_restores_what_was_chosen(press: Press) -> None:
    """Ready → model → provider by Esc, and forward again with another model."""
    choice = press(ENTER, ENTER, ESC, ESC, ENTER, DOWN, ENTER, ENTER)
    assert (choice.provider_id, choice.model_id) == ("anthropic", "claude-haiku-5")


def test_escape_after_changing_something_on_the_last_screen_returns_to_it(press: Press) -> None:
    """`p`, another provider, then Esc twice: the choice is what it was."""
    start = Choice(provider_id="anthropic", model_id="claude-sonnet-5", small_model_id="x")
    assert press("p", DOWN, ENTER, ESC, ESC, ENTER, start=start) == start


def test_escape_on_the_first_screen_stays_there(press: Press) -> None:
    """There is nothing before the first step."""
    assert press(ESC, ESC, ENTER, ENTER, ENTER).provider_id == "anthropic"


def test_escape_from_the_key_leads_to_the_providers(press: Press) -> None:
    """A key that is not at hand is no dead end."""
    keys = ["groq", ENTER, ESC, CTRL_U, "practice", ENTER, ENTER]
    assert press(*keys).provider_id == "practice"


def test_escape_on_a_remembered_choice_leads_to_the_models(press: Press) -> None:
    """The last screen's step before is the model, also when nobody came from there."""
    start = Choice(provider_id="anthropic", model_id="claude-sonnet-5")
    assert press(ESC, DOWN, ENTER, ENTER, start=start).model_id == "claude-haiku-5"


def test_model_and_provider_can_be_changed_on_the_last_screen(press: Press) -> None:
    """`m` and `p` lead to their steps and back to the last screen."""
    start = Choice(provider_id="anthropic", model_id="claude-sonnet-5")
    assert press("m", DOWN, ENTER, ENTER, start=start).model_id == "claude-haiku-5"
    assert press("p", "openai", ENTER, ENTER, ENTER, start=start).provider_id == "openai"


def test_found_key_is_imported_with_one_keystroke(press: Press, deeds: RecordedDeeds) -> None:
    """Tab in the list and `i` on the last screen copy the key; a second time does nothing."""
    press("openai", TAB, TAB, ENTER, ENTER, "i", ENTER)
    assert deeds.done == ["import openai"]
    deeds.done.clear()
    press("i", ENTER, start=Choice(provider_id="openai", model_id="claude-sonnet-5"))
    assert deeds.done == ["import openai"]


def test_failed_import_is_said_and_nothing_else_changes(press: Press, deeds: RecordedDeeds) -> None:
    """No keyring: the wizard goes on with the key where it lies."""
    choice = press("openrouter", TAB, ENTER, ENTER, ENTER)
    assert choice.provider_id == "openrouter"
    assert deeds.done == []


@pytest.mark.parametrize("dead_end", ["bedrock", "ollama", "other-0"])
def test_provider_without_models_or_support_is_no_dead_end(press: Press, dead_end: str) -> None:
    """Unsupported, unreachable, or empty: the list stays and another can be picked."""
    keys = [dead_end, ENTER, CTRL_U, "practice", ENTER, ENTER]
    assert press(*keys).provider_id == "practice"


def test_nothing_goes_to_stdout(press: Press, capsys: pytest.CaptureFixture[str]) -> None:
    """stdout is data; what the wizard says goes to stderr."""
    press("groq", ENTER, GOOD_KEY, ENTER, ENTER, ENTER)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert GOOD_KEY not in captured.err


@pytest.mark.parametrize("slip", ["sk with blanks", "sk-ключ-0123456789", "short"])
def test_what_cannot_be_a_key_is_neither_sent_nor_kept(
    press: Press, deeds: RecordedDeeds, slip: str
) -> None:
    """Blanks, foreign letters, too short: said at once, and the field stays open."""
    press("groq", ENTER, slip, ENTER, CTRL_U, GOOD_KEY, ENTER, ENTER, ENTER)
    assert deeds.done == ["check groq …abcd", "store groq …abcd"]


def test_slips_of_pasting_are_mended(press: Press, deeds: RecordedDeeds) -> None:
    """Blanks around and a `Bearer` before the key are left out."""
    press("groq", ENTER, f" Bearer {GOOD_KEY} ", ENTER, ENTER, ENTER)
    assert deeds.done[-1] == "store groq …abcd"
