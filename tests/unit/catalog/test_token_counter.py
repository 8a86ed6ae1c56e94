"""Delivered text is counted offline, near enough, whatever it is."""

import sys

import pytest

from bench.estimates import MODELS, errors, vectors
from opencode_gate.catalog import token_counter
from opencode_gate.catalog.token_counter import SAMPLED_CHARS, TokenCounter
from opencode_gate.catalog.token_families import CLASSES, FAMILIES, family_of
from opencode_gate.catalog.vocabulary import Vocabulary

VECTORS = vectors()
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)


@each_vector
def test_the_models_whose_vocabulary_is_here_are_counted_to_the_token(vector):
    assert TokenCounter().count(vector.text, "gpt-5.4") == vector.tokens["o200k"]


@pytest.mark.parametrize("family", ["o200k", "cl100k"])
def test_estimates_are_within_their_bar(family):
    """At most 5 % off in the median and 20 % at worst."""
    found = errors(family, VECTORS)
    assert found.median <= 0.05
    assert abs(found.worst[1]) <= 0.20, found.worst


@pytest.mark.parametrize("family", MODELS)
def test_families_with_other_vocabularies_are_not_far_off(family):
    """A third at worst, where four characters a token would be two thirds off."""
    found = errors(family, VECTORS)
    assert found.median <= 0.055
    assert abs(found.worst[1]) <= 0.33, found.worst


def test_nothing_is_no_token_and_anything_is_at_least_one():
    assert TokenCounter().count("", "gpt-5.4") == 0
    assert TokenCounter().count("a", "claude-sonnet-5") == 1


def test_a_long_text_is_counted_by_samples():
    """So that the work has a bound, however much a model wrote."""
    text = "\n".join(vector.text for vector in VECTORS[:20]) * 20
    assert len(text) > 10 * SAMPLED_CHARS
    counted = TokenCounter().count(text, "gpt-5.4")
    assert counted == pytest.approx(Vocabulary().count(text), rel=0.1)


@pytest.mark.parametrize("text", ["a\ud83dz", "\x00" * 300, "x" * 20_000, "<|endoftext|>", "ſ't"])
def test_any_text_can_be_counted(text):
    assert 1 <= TokenCounter().count(text, "gpt-5.4") <= 4 * len(text)


def test_without_the_vocabulary_there_is_still_a_count(monkeypatch):
    def missing() -> Vocabulary:
        raise FileNotFoundError

    monkeypatch.setattr(token_counter, "Vocabulary", missing)
    assert TokenCounter().count("eight ch", "gpt-5.4") == 2


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4o-mini", "o200k"),
        ("gpt-4.1", "o200k"),
        ("openai/gpt-5.5-codex", "o200k"),
        ("o3-mini", "o200k"),
        ("openai/gpt-oss-120b", "o200k"),
        ("gpt-4-turbo", "cl100k"),
        ("gpt-3.5-turbo", "cl100k"),
        ("anthropic/claude-sonnet-5", "claude"),
        ("google/gemini-3.8-flash", "gemma"),
        ("deepseek-chat", "deepseek"),
        ("Qwen/Qwen3-Coder", "qwen"),
        ("meta-llama/Llama-4-Scout", "llama3"),
        ("devstral-small", "mistral"),
        ("moonshotai/kimi-k2", "kimi"),
        ("zai/glm-4.6", "glm"),
        ("grok-5", "unknown"),
        ("something-new", "unknown"),
        (None, "unknown"),
    ],
)
def test_a_model_is_known_by_its_id(model, family):
    assert family_of(model).name == family


def test_every_family_has_a_factor_for_everything():
    assert all(len(family.ratios) == len(CLASSES) for _, family in FAMILIES)


def test_the_vocabulary_is_not_opened_before_something_is_counted():
    """A gateway whose answers all end well never reads it."""
    counter = TokenCounter()
    assert counter.count("", "gpt-5.4") == 0
    assert counter._vocabulary is None
    assert "tiktoken" not in sys.modules
