"""Bars: the longest fills the room, something is seen, nothing is empty, unknown is not zero."""

from opencode_gate.cli.bars import Bar, bar_lines


def bars(*values: float | None) -> list[Bar]:
    return [Bar(label="m" * number, value=v, text=f"${v}") for number, v in enumerate(values, 1)]


def test_the_longest_bar_fills_the_room_and_the_others_are_in_proportion() -> None:
    assert bar_lines(bars(4, 2, 1.5), width=20) == [
        "m   ███████████ $4",
        "mm  █████▌ $2",
        "mmm ████▏ $1.5",
    ]
    assert max(map(len, bar_lines(bars(4, 2, 1.5), width=20))) <= 20


def test_a_little_is_seen_and_nothing_and_unknown_are_empty() -> None:
    assert bar_lines(bars(1000, 0.001, 0, None), width=30)[1:] == [
        "mm   ▏ $0.001",
        "mmm  $0",
        "mmmm $None",
    ]


def test_bars_of_nothing_at_all() -> None:
    assert bar_lines([], width=30) == []
    assert bar_lines(bars(0, None), width=30) == ["m  $0", "mm $None"]


def test_a_long_name_leaves_room_for_the_bar() -> None:
    (line,) = bar_lines([Bar(label="x" * 90, value=1, text="$1")], width=80)
    assert line.startswith("x" * 39 + "… █")
    assert len(line) <= 80
