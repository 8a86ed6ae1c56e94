"""The list on the screen: only what is visible is drawn, and the window follows the pointer."""

from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from opencode_gate.cli.wizard.search_list import ListAnswer, ListQuestion, SearchList
from opencode_gate.cli.wizard.terminal import Fragments, Terminal

LINES = 8261
DOWN, UP, PAGE_DOWN, END, ENTER = "\x1b[B", "\x1b[A", "\x1b[6~", "\x1b[F", "\r"


class DrawnLines:
    """A question that counts which lines were drawn."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def line(self, index: int, width: int) -> Fragments:
        self.drawn.append(index)
        return [("", str(index))]

    def question(self) -> ListQuestion:
        return ListQuestion(
            top=[("", "top")],
            title="Which?",
            haystacks=[f"line {n} " for n in range(LINES)],
            heading=lambda width: [],
            line=self.line,
            detail=str,
        )


def press(*keys: str, pointer_on: int = 0) -> tuple[ListAnswer, DrawnLines]:
    lines = DrawnLines()
    with create_pipe_input() as pipe:
        pipe.send_text("".join(keys))
        terminal = Terminal(pipe, DummyOutput())
        return SearchList(lines.question(), terminal, pointer_on=pointer_on).ask(), lines


def test_a_keystroke_draws_the_visible_window_and_nothing_else() -> None:
    """However many lines there are, at most 15 of them are drawn."""
    search_list = DrawnLines()
    with create_pipe_input() as pipe:
        shown = SearchList(search_list.question(), Terminal(pipe, DummyOutput()))
        for typed in ("", "l", "li", "line 80"):
            search_list.drawn.clear()
            shown._buffer.text = typed
            shown._draw_lines()
            assert 0 < len(search_list.drawn) <= 15


def test_the_line_under_the_pointer_is_picked() -> None:
    """Arrows, pages and the ends."""
    assert press(DOWN, DOWN, UP, ENTER)[0].index == 1
    assert press(PAGE_DOWN, ENTER)[0].index == 15
    assert press(END, ENTER)[0].index == LINES - 1
    assert press(UP, ENTER)[0].index == LINES - 1
    assert press(END, DOWN, ENTER)[0].index == 0


def test_the_window_follows_the_pointer() -> None:
    """The last line is drawn when the pointer is on it, and not drawn at the start."""
    assert LINES - 1 not in press(ENTER)[1].drawn
    with create_pipe_input() as pipe:
        lines = DrawnLines()
        shown = SearchList(lines.question(), Terminal(pipe, DummyOutput()), pointer_on=LINES - 1)
        shown._draw_lines()
    assert lines.drawn[-1] == LINES - 1


def test_typing_puts_the_pointer_on_the_first_match() -> None:
    """Type and Enter is the fast way."""
    assert press(DOWN, DOWN, "8260", ENTER)[0] == ListAnswer(
        action="pick", index=8260, typed="8260"
    )


def test_enter_without_a_match_does_nothing() -> None:
    """Nothing is picked by accident; ctrl-u brings the list back."""
    assert press("zzz", ENTER, "\x15", ENTER)[0].index == 0
