"""Search: what is found, in which order, and how little each keystroke costs."""

from collections.abc import Sequence

from opencode_gate.cli.wizard.matching import Matcher, haystack


def found(lines: Sequence[str], typed: str) -> list[str]:
    return [lines[i] for i in Matcher([haystack(line) for line in lines]).search(typed)]


LINES = ["openai/gpt-5-mini", "gpt-5-codex", "gpt-5", "claude-sonnet-5", "Sonnet Writer"]


def test_every_word_must_occur_in_any_order_and_case() -> None:
    """Words narrow; case does not matter."""
    assert found(LINES, "SONNET") == ["Sonnet Writer", "claude-sonnet-5"]
    assert found(LINES, "5 claude") == ["claude-sonnet-5"]
    assert found(LINES, "nothing") == []


def test_nothing_typed_shows_everything_in_order() -> None:
    """Blanks are no search."""
    assert found(LINES, "") == LINES
    assert found(LINES, "  ") == LINES


def test_exact_name_comes_first_then_what_begins_so() -> None:
    """`gpt-5` is the model of that name, not a newer one that merely contains it."""
    assert found(LINES, "gpt-5") == ["gpt-5", "gpt-5-codex", "openai/gpt-5-mini"]


def test_punctuation_can_be_left_out() -> None:
    """`gpt5` finds `gpt-5`."""
    assert found(LINES, "gpt5co") == ["gpt-5-codex"]


class CountedLine(str):
    """A line that counts how often it is looked into for a word."""

    looks = 0

    def __contains__(self, word: str) -> bool:  # type: ignore[override]
        CountedLine.looks += 1
        return super().__contains__(word)


def test_a_further_letter_looks_only_at_what_matched_before() -> None:
    """The cost of a keystroke falls with the number of matches left."""
    lines = [CountedLine(f"model-{n} ") for n in range(8000)] + [CountedLine("rare-1 ")]
    matcher = Matcher(lines)
    matcher.search("rare")
    CountedLine.looks = 0
    matcher.search("rare-")
    assert CountedLine.looks <= 2


def test_changing_or_deleting_letters_starts_afresh() -> None:
    """No match is lost by typing, deleting and typing again."""
    lines = [haystack(line) for line in LINES]
    matcher = Matcher(lines)
    for typed in (
        "s",
        "so",
        "sonnet",
        "sonnet 5",
        "sonnet",
        "",
        "gpt",
        "g",
        "claude gpt",
        "claude",
    ):
        assert list(matcher.search(typed)) == list(Matcher(lines).search(typed)), typed
