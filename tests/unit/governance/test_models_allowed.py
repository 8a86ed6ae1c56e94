"""Lists of models: what is denied stays denied however it is written, and why is said."""

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.governance.models_allowed import check_models, check_provider
from opencode_gate.governance.policy import ModelRules, Owner

CORE = Owner("team", "core")


def is_allowed(rules: ModelRules, name: str) -> bool:
    provider_id, _, model_id = name.partition("/")
    return check_models(CORE, rules, provider_id, model_id) is None


@pytest.mark.parametrize(
    ("allow", "deny", "name", "allowed"),
    [
        (None, (), "openai/gpt-5", True),
        (None, ("openai/gpt-5",), "openai/gpt-5", False),
        (None, ("openai/gpt-5",), "openai/gpt-5-mini", True),
        (("anthropic/*",), (), "anthropic/claude-opus-5", True),
        (("anthropic/*",), (), "openai/gpt-5", False),
        (("*",), ("*opus*",), "anthropic/claude-opus-5", False),
        (("anthropic/claude-opus-5",), ("anthropic/*",), "anthropic/claude-opus-5", False),
        (("openai/gpt-?",), (), "openai/gpt-5", True),
        (("openai/gpt-?",), (), "openai/gpt-55", False),
        # A star stands for slashes too.
        (("openrouter/*",), (), "openrouter/openai/gpt-5", True),
        (("openrouter/openai/*",), (), "openrouter/anthropic/claude", False),
        # Without a slash it is about the model, whoever serves it.
        (None, ("gpt-5*",), "openai/gpt-5-pro", False),
        (None, ("gpt-5*",), "openrouter/openai/gpt-5-pro", False),
        (("gpt-5",), (), "azure/gpt-5", True),
        (("gpt-5",), (), "gpt-5/other", False),
        # Brackets are part of a name and no pattern.
        (("a/m[1]",), (), "a/m[1]", True),
        (("a/m[1]",), (), "a/m1", False),
        (("a/m.x",), (), "a/mzx", False),
    ],
)
def test_globs_over_provider_and_model(allow, deny, name, allowed) -> None:
    assert is_allowed(ModelRules(allow=allow, deny=deny), name) is allowed


@pytest.mark.parametrize(
    "spelling", ["gemini-2.5-pro", "models/gemini-2.5-pro", "Gemini-2.5-PRO", " gemini-2.5-pro\n"]
)
def test_a_rule_is_not_got_around_by_spelling(spelling) -> None:
    rules = ModelRules(deny=("google/gemini-2.5-pro",))
    assert check_models(CORE, rules, "google", spelling) is not None
    assert check_models(CORE, rules, "Google", spelling) is not None
    assert check_models(CORE, ModelRules(allow=("Google/Gemini-*",)), "google", spelling) is None


def test_where_there_is_a_rule_a_request_must_name_its_model() -> None:
    for rules in (ModelRules(allow=("openai/*",)), ModelRules(deny=("openai/gpt-5",))):
        for unnamed in (None, "x" * 100_000):
            denied = check_models(CORE, rules, "openai", unnamed)
            assert denied is not None
            assert denied.code == "model-denied"
            assert len(denied.message) < 500
    assert check_models(CORE, ModelRules(), "openai", None) is None
    assert check_models(CORE, ModelRules(allow=("*",)), "openai", None) is None


@pytest.mark.parametrize(
    ("allow", "deny", "rule"),
    [
        (("anthropic/*",), (), "provider"),
        (("openai/gpt-5-mini",), (), "model"),
        (("*/gpt-5-mini",), (), "model"),
        (("gpt-5-mini",), (), "model"),
        (("open*",), (), "model"),
        (None, ("openai/*",), "provider"),
        (None, ("*",), "provider"),
        (None, ("open**/*",), "provider"),
        (None, ("openai/gpt*",), "model"),
        (None, ("openai/?*",), "model"),
        (None, ("*/*",), "provider"),
    ],
)
def test_a_provider_none_of_whose_models_can_be_used_is_refused_as_such(allow, deny, rule) -> None:
    rules = ModelRules(allow=allow, deny=deny)
    denied = check_models(CORE, rules, "openai", "gpt-5")
    assert denied is not None
    assert (denied.rule, denied.code) == (rule, f"{rule}-denied")
    assert (check_provider(CORE, rules, "openai") is not None) == (rule == "provider")


def test_what_is_allowed_and_what_is_nearest_is_said() -> None:
    rules = ModelRules(allow=("anthropic/*", "openai/gpt-5-mini"), deny=("*opus*",))
    denied = check_models(CORE, rules, "openai", "gpt-5")
    assert denied is not None
    assert denied.message == (
        "ogate: team core may not use openai/gpt-5. Allowed: anthropic/*, openai/gpt-5-mini. "
        "Nearest: openai/gpt-5-mini."
    )
    opus = check_models(CORE, rules, "anthropic", "claude-opus-5")
    assert opus is not None
    assert "*opus* is denied" in opus.message
    assert (opus.outcome, opus.owner, opus.command) == (
        "deny",
        "team core",
        "ogate teams set core --clear deny",
    )


@pytest.mark.parametrize(
    ("allow", "deny", "command"),
    [
        (("anthropic/*",), (), "ogate teams set core --allow 'anthropic/*' --allow 'openai/*'"),
        (("gpt-5-mini",), (), "ogate teams set core --allow gpt-5-mini --allow openai/gpt-5"),
        (None, ("gpt-5", "*opus*"), "ogate teams set core --deny '*opus*'"),
        (tuple(f"m{number}" for number in range(20)), (), "ogate teams show core"),
    ],
)
def test_the_command_allows_what_was_asked_and_leaves_the_rest(allow, deny, command) -> None:
    denied = check_models(CORE, ModelRules(allow=allow, deny=deny), "openai", "gpt-5")
    assert denied is not None
    assert denied.command == command


def test_a_long_list_is_cut() -> None:
    rules = ModelRules(allow=tuple(f"openai/m{number}" for number in range(100)))
    denied = check_models(CORE, rules, "openai", "other")
    assert denied is not None
    assert "and 92 more" in denied.message


def test_in_shadow_it_is_only_recorded() -> None:
    denied = check_models(CORE, ModelRules(deny=("*",), mode="shadow"), "openai", "gpt-5")
    assert denied is not None
    assert denied.outcome == "shadow"


def test_a_pattern_full_of_stars_comes_to_an_end_over_a_long_name() -> None:
    rules = ModelRules(deny=("*a" * 40 + "b",))
    for tail in range(20):
        assert check_models(CORE, rules, "p", "a" * 500 + str(tail)) is None


letters = st.text("ab/*?", min_size=1, max_size=6)
names = st.text("ab/", min_size=1, max_size=6)


@given(pattern=letters, model=names)
def test_a_pattern_matches_what_a_shell_would_match(pattern, model) -> None:
    full = pattern if "/" in pattern or pattern == "*" else f"*/{pattern}"
    expected = fnmatch.fnmatchcase(f"a/{model}", full)
    assert is_allowed(ModelRules(deny=(pattern,)), f"a/{model}") is not expected


@given(pattern=letters, provider=st.sampled_from(["a", "b", "ab"]), model=names)
def test_a_provider_is_only_refused_if_each_of_its_models_is(pattern, provider, model) -> None:
    for rules in (ModelRules(allow=(pattern,)), ModelRules(deny=(pattern,))):
        if check_provider(CORE, rules, provider) is not None:
            assert check_models(CORE, rules, provider, model) is not None
        matched = fnmatch.fnmatchcase(
            f"{provider}/{model}", pattern if "/" in pattern or pattern == "*" else f"*/{pattern}"
        )
        assert (check_models(CORE, rules, provider, model) is None) == (
            matched == (rules.allow is not None)
        )
