"""Where a key stands in a TOML text, and what a dotted key means."""

import pytest

from opencode_gate.config.toml_lines import key_path, line_of
from opencode_gate.core.errors import ConfigError


def test_a_dotted_key_is_read_as_toml_reads_it() -> None:
    assert key_path('prices."openai/gpt-5".input') == ("prices", "openai/gpt-5", "input")


@pytest.mark.parametrize("text", ["", "a b", "a.", "a = 1\nb", "[a]"])
def test_what_is_no_key_is_refused(text) -> None:
    with pytest.raises(ConfigError, match="not the name of a setting"):
        key_path(text)


def test_the_line_of_a_key_is_found_under_the_right_table() -> None:
    text = '[a]\nx = 1\n[b]\n# x = 2\n"x" = 3\n["c.d"]\nx.y = 1\n'
    assert line_of(text, ("a", "x")) == 2
    assert line_of(text, ("b", "x")) == 5
    assert line_of(text, ("c.d", "x", "y")) == 7
    assert line_of(text, ("nowhere",)) is None
