"""The real Opencode through a served gateway, beside the same turn through its own."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mock_providers import AIMOCK_BASES, agent_turn, aimock
from tests.support.real_session import Person, generations
from tests.support.recording_relay import RecordingRelay
from tests.support.served_gateway import change_key, put_key, served

pytestmark = pytest.mark.e2e

KEY = "sk-live-0123456789abcdef0123456789abcdef"
ANSWER = "The note says that milk is to be bought."
TITLE, CALL, FINAL = (37, 5), (10_007, 23), (20_011, 41)


def counts(pair: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": pair[0], "completion_tokens": pair[1]}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingRelay]:
    fixtures = agent_turn(title=counts(TITLE), call=counts(CALL), answer=counts(FINAL), text=ANSWER)
    with aimock(tmp_path_factory.mktemp("aimock"), fixtures) as relay:
        yield relay


@pytest.mark.parametrize(
    ("provider", "model", "wire"),
    [
        ("openai", "gpt-5", "openai-responses"),
        ("anthropic", "claude-sonnet-4-5", "anthropic"),
        ("deepseek", "deepseek-v4-pro", "openai-chat"),
        ("google", "gemini-2.5-pro", "gemini"),
    ],
)
def test_a_turn_through_a_served_gateway_has_the_same_account(
    tmp_path: Path, scripted: RecordingRelay, provider: str, model: str, wire: str
) -> None:
    """Same tokens, same cost, same conversations, same check; the provider sees its key only."""
    person = Person(tmp_path)
    variable = {"google": "GEMINI_API_KEY"}.get(provider, f"{provider.upper()}_API_KEY")
    base = scripted.url + AIMOCK_BASES[wire]
    person.configure("providers", "edit", provider, "--base-url", base)
    own = _turn(person, model=f"{provider}/{model}", **{variable: KEY})
    scripted.seen.clear()

    key = put_key("ada")
    with served(tmp_path, **{variable: KEY}) as gateway:
        client = {"OGATE_HOME": str(tmp_path / "client"), "OGATE_KEY": key}
        there = _turn(person, "--gateway", gateway.url, model=f"{provider}/{model}", **client)
        assert gateway.stop() == 0
    assert there.keys() == own.keys()
    for name in there.keys() - {"session", "timing", "resume", "hidden"}:
        assert _steady(there[name]) == _steady(own[name]), name
    assert len(scripted.seen) == 3
    for relayed in scripted.seen:
        assert KEY in " ".join(relayed.headers.values())
        assert not any("ogs-" in value or "ogk-" in value for value in relayed.headers.values())


def test_a_key_that_is_switched_off_stops_opencode_with_our_sentence(
    tmp_path: Path, scripted: RecordingRelay
) -> None:
    """One request, one refusal, no retry."""
    person = Person(tmp_path)
    base = scripted.url + AIMOCK_BASES["openai-responses"]
    person.configure("providers", "edit", "openai", "--base-url", base)
    scripted.seen.clear()
    key = put_key("ada")
    with served(tmp_path, OPENAI_API_KEY=KEY) as gateway:
        client = {"OGATE_HOME": str(tmp_path / "client"), "OGATE_KEY": key}
        first = person.ogate(*_words(gateway.url), **client)
        assert first.returncode == 0, first.stderr
        assert generations()
        asked = len(scripted.seen)
        with person.started(*_words(gateway.url, "serve", "--port", "0"), **client) as launcher:
            assert launcher.stdout is not None
            assert any("listening on" in line for line in launcher.stdout)
            change_key("ada", active=False)
            launcher.terminate()
            _, err = launcher.communicate(timeout=60)
    assert len(scripted.seen) == asked
    assert "the account is with the gateway" in err


def _words(url: str, *words: str) -> tuple[str, ...]:
    what = words or ("run", "-m", "openai/gpt-5", "What is in my notes?")
    return ("run", "--no-input", "--gateway", url, "--", *what)


def _turn(person: Person, *options: str, model: str, **more: str) -> dict[str, object]:
    done = person.ogate(
        *("run", "--no-input", "--summary", "json", *options),
        *("--", "run", "-m", model, "What is in my notes?"),
        **more,
    )
    assert done.returncode == 0, done.stderr
    assert ANSWER in done.stdout
    document: dict[str, object] = json.loads(done.stderr[done.stderr.index('{\n  "version"') :])
    return document


def _steady(value: object) -> object:
    """Without what differs from one run to the next.

    Opencode asks for a title and for an answer at once, and either may come first.
    """
    if isinstance(value, dict):
        return {name: _steady(one) for name, one in value.items() if name != "id"}
    return sorted(map(_steady, value), key=repr) if isinstance(value, list) else value
