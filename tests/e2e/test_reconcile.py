"""The real Opencode's own figure beside the ledger's: the same, or every difference named."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencode_gate.core.semconv import ExchangeStatus, UsageQuality
from opencode_gate.session.reconciliation import Figures, Reason
from tests.support.fake_chat import ANSWER, fake_chat
from tests.support.real_opencode import opencode_program
from tests.support.real_session import Person, query
from tests.support.scripted_provider import ScriptedProvider, scripted_provider
from tests.support.scripted_session import MODEL, Recorded, configure, figures
from tests.support.terminal_screen import TerminalScreen

pytestmark = pytest.mark.e2e


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider() as running:
        yield running


@pytest.fixture
def person(tmp_path: Path, provider: ScriptedProvider) -> Person:
    person = Person(tmp_path)
    configure(person, provider)
    return person


def shown_by_opencode(person: Person) -> Figures:
    """What Opencode shows for all main conversations of this home, read without our code."""
    database = person.home / ".local/share/opencode/opencode.db"
    ((cost, tokens_in, tokens_out),) = query(
        database,
        "SELECT sum(cost), sum(tokens_input + tokens_cache_read + tokens_cache_write),"
        " sum(tokens_output + tokens_reasoning) FROM session WHERE parent_id IS NULL",
    )
    assert isinstance(cost, float) and isinstance(tokens_in, int) and isinstance(tokens_out, int)
    return Figures(
        input_tokens=tokens_in, output_tokens=tokens_out, cost_nano_usd=round(cost * 10**9)
    )


def without_requests(figure: Figures) -> Figures:
    return figure - Figures(requests=figure.requests)


def test_opencode_leaves_out_titles_and_sub_agents_and_nothing_else(
    person: Person, provider: ScriptedProvider
):
    done = person.prompt("Please delegate this.", model=MODEL)
    assert done.returncode == 0, done.stderr
    recorded = Recorded()
    assert recorded.explained() == {
        Reason.TITLES: figures(provider.of("title")),
        Reason.SUB_AGENTS: figures(provider.of("subagent")),
    }
    found = recorded.reconciliation
    assert found.agent == figures(provider.of("main"))
    assert without_requests(found.agent) == shown_by_opencode(person)
    assert found.ledger == figures(provider.given)
    assert found.bypasses == ()
    assert re.search(r"check +Opencode counted \$0\.0021, ogate \$0\.0052", done.stderr)


def test_a_conversation_taken_up_again_is_compared_from_this_run_on(
    person: Person, provider: ScriptedProvider
):
    assert person.prompt("Begin.", model=MODEL).returncode == 0
    before = len(provider.given)
    done = person.prompt("Go on.", "-c", model=MODEL)
    assert done.returncode == 0, done.stderr
    recorded = Recorded()
    assert recorded.explained() == {}
    assert recorded.reconciliation.agent == figures(provider.given[before:])
    assert "Opencode counted the same" in done.stderr


def test_tries_that_were_billed_and_refusals_that_were_not(
    person: Person, provider: ScriptedProvider
):
    """One answer dies midway, another is refused first: Opencode counts the last try alone."""
    assert person.prompt("First a cut.", model=MODEL).returncode == 0
    recorded = Recorded()
    lost, whole = provider.of("main")
    assert (lost.is_whole, whole.is_whole) == (False, True)
    (cut,) = [one for one in recorded.exchanges if one.status is ExchangeStatus.UPSTREAM_ERROR]
    assert cut.usage_quality is UsageQuality.ESTIMATED
    explained = recorded.explained()
    assert set(explained) == {Reason.TITLES, Reason.RETRIES}
    assert explained[Reason.RETRIES].cost_nano_usd == cut.cost_nano_usd
    assert recorded.reconciliation.agent == figures([whole])

    assert person.prompt("Now be busy.", "-c", model=MODEL).returncode == 0
    assert Recorded().explained() == {Reason.RETRIES: Figures(requests=1)}


def test_usage_that_was_never_stated_is_estimated_here_and_nothing_there(
    person: Person, provider: ScriptedProvider
):
    assert person.prompt("Be silent.", model=MODEL).returncode == 0
    recorded = Recorded()
    explained = recorded.explained()
    assert set(explained) == {Reason.TITLES, Reason.ESTIMATED}
    assert explained[Reason.ESTIMATED].input_tokens > 0
    assert without_requests(recorded.reconciliation.agent) == shown_by_opencode(person) == Figures()


def test_the_same_tokens_at_a_price_of_ones_own(person: Person, provider: ScriptedProvider):
    for name, price in (("input", "3"), ("output", "4"), ("cache_read", "0.5")):
        person.configure("config", "set", f'prices."{MODEL}".{name}', price)
    assert person.prompt("Hello.", model=MODEL).returncode == 0
    recorded = Recorded()
    (main,) = provider.of("main")
    (priced,) = [one for one in recorded.exchanges if one.usage.output == main.output_tokens]
    explained = recorded.explained()
    assert set(explained) == {Reason.TITLES, Reason.PRICES}
    at_opencodes_prices = figures([main]).cost_nano_usd
    assert explained[Reason.PRICES] == Figures(
        cost_nano_usd=(priced.cost_nano_usd or 0) - at_opencodes_prices
    )
    assert without_requests(recorded.reconciliation.agent) == shown_by_opencode(person)


def test_an_answer_the_person_stopped_is_billed_and_opencode_counts_none_of_it(
    person: Person, provider: ScriptedProvider, tmp_path: Path
):
    """Esc Esc while it streams, then another prompt, on Opencode's own screen."""
    environ = person.shell_environ()
    with TerminalScreen(tmp_path, columns=110, rows=36, environ=environ) as screen:
        screen.run(["cd", str(person.project)])
        screen.run(["ogate", "run", "--model", MODEL])
        screen.wait_for("Ask anything")
        ask(screen, "Please stall here.")
        screen.wait_for(lambda text: provider.stalled.is_set() and "The model answers." in text)
        screen.press("Escape")
        screen.wait_for("again to interrupt")
        screen.press("Escape")
        screen.wait_for("interrupted")
        ask(screen, "And go on.")
        answered(screen, provider, 1)
        command(screen, "exit")
        text = screen.wait_for("resume ")
    assert "interrupted answers +" in " ".join(text.split())

    recorded = Recorded()
    (stopped,) = [
        one for one in recorded.exchanges if one.status is ExchangeStatus.CLIENT_DISCONNECTED
    ]
    assert stopped.usage_quality is UsageQuality.ESTIMATED
    assert stopped.prompt_id is not None
    explained = recorded.explained()
    assert set(explained) == {Reason.TITLES, Reason.INTERRUPTED}
    assert explained[Reason.INTERRUPTED].cost_nano_usd == stopped.cost_nano_usd
    assert recorded.reconciliation.agent == figures(provider.of("main")[1:])
    assert without_requests(recorded.reconciliation.agent) == shown_by_opencode(person)


def test_an_answer_the_person_undid_was_paid_all_the_same(
    person: Person, provider: ScriptedProvider, tmp_path: Path
):
    """Opencode forgets it as soon as the next prompt is typed; its tokens were used."""
    environ = person.shell_environ()
    with TerminalScreen(tmp_path, columns=110, rows=36, environ=environ) as screen:
        screen.run(["cd", str(person.project)])
        screen.run(["ogate", "run", "--model", MODEL])
        screen.wait_for("Ask anything")
        for number, text in enumerate(("One thing.", "Another thing."), start=1):
            ask(screen, text)
            answered(screen, provider, number)
        command(screen, "undo")
        screen.wait_for("1 message reverted")
        screen.press("C-u")
        screen.wait_for(lambda text: "Another thing." not in text)
        ask(screen, "A better thing.")
        answered(screen, provider, 3)
        command(screen, "exit")
        screen.wait_for("resume ")
    recorded = Recorded()
    first, undone, last = provider.of("main")
    assert recorded.explained() == {
        Reason.TITLES: figures(provider.of("title")),
        Reason.NOT_RECORDED: figures([undone]),
    }
    assert recorded.reconciliation.agent == figures([first, last])
    assert without_requests(recorded.reconciliation.agent) == shown_by_opencode(person)
    (lost,) = [one for one in recorded.exchanges if one.usage.output == undone.output_tokens]
    assert (lost.prompt_id, lost.mode) == (None, None), "its prompt is gone too"


def test_answers_that_went_past_the_gateway_are_a_bypass_with_the_command_that_mends_it(
    person: Person, provider: ScriptedProvider
):
    """A plugin of the user's own takes over in a conversation that began through the gateway."""
    assert person.prompt("Begin.", model=MODEL).returncode == 0
    tokens = {"type": "oauth", "refresh": "r", "access": "a", "expires": 4_000_000_000_000}
    person.write(person.auth_file, {"openai": tokens})
    person.configure("providers", "edit", "openai", "--subscription", "key")
    with fake_chat() as elsewhere:
        person.write(
            person.opencode_config.parent / "plugin/company.js",
            f"""
            export const Company = async () => ({{
              auth: {{
                provider: "openai",
                methods: [],
                loader: async () => ({{
                  apiKey: "company",
                  fetch: (input, init) => fetch("{elsewhere.url}/v1/responses", init),
                }}),
              }},
            }})
            """,
        )
        done = person.prompt(
            "Go on.", "-c", model="openai/gpt-5", OPENAI_API_KEY="sk-live-0123456789abcdef"
        )
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    said = " ".join(done.stderr.split())
    assert "not counted: 1 answer of openai/gpt-5 did not pass the gateway: ogate doctor" in said
    recorded = Recorded()
    (bypass,) = recorded.reconciliation.bypasses
    assert (bypass.provider_name, bypass.model, bypass.answers) == ("openai", "gpt-5", 1)
    assert bypass.is_certain and not bypass.is_expected
    assert recorded.explained() == {Reason.BYPASS: Figures() - bypass.figures}


def test_another_opencode_in_the_same_folder_meanwhile_is_none_of_ours(
    person: Person, provider: ScriptedProvider
):
    """It shares the database, and its answers never pass the gateway."""
    arguments = ("run", "--no-input", "--", "run", "-m", MODEL, "Please stall here.")
    with person.started(*arguments) as session:
        assert provider.stalled.wait(60)
        plain = person.call(opencode_program(), "run", "-m", MODEL, "Hello.")
        assert plain.returncode == 0, plain.stderr
        provider.release.set()
        _, stderr = session.communicate(timeout=60)
    assert "did not pass the gateway" not in stderr
    recorded = Recorded()
    assert recorded.reconciliation.bypasses == ()
    assert set(recorded.explained()) == {Reason.TITLES}
    assert len(recorded.conversations) == 1


def test_without_opencodes_database_only_the_comparison_is_missing(
    person: Person, provider: ScriptedProvider
):
    done = person.prompt("Hello.", model=MODEL, OPENCODE_DB=":memory:")
    assert done.returncode == 0, done.stderr
    assert "ogate · session" in done.stderr
    assert re.search(r"own/m-1 +2 ", done.stderr)
    assert "check " not in done.stderr


def ask(screen: TerminalScreen, text: str) -> None:
    screen.type(text)
    screen.wait_for(text)
    screen.press("Enter")


def answered(screen: TerminalScreen, provider: ScriptedProvider, times: int) -> None:
    """Waits until so many prompts were answered, and Opencode has nothing left to do."""
    screen.wait_for(lambda text: sum(given.is_whole for given in provider.of("main")) == times)
    screen.wait_for(lambda text: "interrupt" not in text.replace("interrupted", ""))


def command(screen: TerminalScreen, name: str) -> None:
    screen.type(f"/{name}")
    screen.wait_for(lambda text: re.search(rf"/{name} +\w", text) is not None)
    screen.press("Enter")
