"""A list to pick one line from, with search as you type, drawn inline below the prompt.

The invariant: only the lines in the visible window are ever drawn, however many there are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import (
    BufferControl,
    FormattedTextControl,
    HSplit,
    Layout,
    VSplit,
    Window,
)

from opencode_gate.cli.wizard.matching import Matcher
from opencode_gate.cli.wizard.terminal import (
    STYLE,
    Draw,
    Fragments,
    Terminal,
    key_line,
    with_leaving_keys,
)

_MOST_LINES = 15
_OTHER_LINES = 7
"""Crumb, question, heading, two of detail, keys, and one line of the shell above."""


class ListQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """One list to pick from.

    Attributes:
        top: the line above the question.
        haystacks: what each line is found by (see `matching.haystack`).
        heading: draws the column titles.
        line: draws one line by its index, for a width in cells.
        detail: says more about the line under the pointer, in two lines at most.
        refusal: why a line cannot be picked, `None` if it can.
        extra_keys: further prompt_toolkit keys that end the list, with the action each means.
        key_help: words for the key line, shown after those of the list itself.
    """

    top: Fragments
    title: str
    haystacks: Sequence[str]
    heading: Draw
    line: Callable[[int, int], Fragments]
    detail: Callable[[int], str]
    refusal: Callable[[int], str | None] = lambda index: None
    extra_keys: Mapping[str, str] = msgspec.field(default_factory=dict)
    key_help: Sequence[str] = ()


class ListAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How a list was left: `action` is `pick`, `back`, or one of the extra keys' actions."""

    action: str
    index: int | None = None
    typed: str = ""


Tone = Literal["problem", "done"]


class SearchList:
    """The state of a list on the screen: what is typed, what matches, where the pointer is."""

    def __init__(
        self,
        question: ListQuestion,
        terminal: Terminal,
        *,
        pointer_on: int = 0,
        typed: str = "",
        message: str | None = None,
        tone: Tone = "problem",
    ) -> None:
        self._question = question
        self._terminal = terminal
        self._matcher = Matcher(question.haystacks)
        self._found: Sequence[int] = self._matcher.search(typed)
        self._message, self._tone = message, tone
        self._pointer = self._found.index(pointer_on) if pointer_on in self._found else 0
        self._first = 0
        self._buffer = Buffer(multiline=False)
        self._buffer.text = typed
        self._buffer.cursor_position = len(typed)
        self._buffer.on_text_changed += self._on_typed

    def ask(self) -> ListAnswer:
        """Shows the list until a line is picked or the list is left.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        application: Application[ListAnswer] = Application(
            layout=Layout(self._container()),
            key_bindings=self._keys(),
            style=STYLE,
            input=self._terminal.input,
            output=self._terminal.output,
            erase_when_done=True,
        )
        return with_leaving_keys(application, ListAnswer(action="back")).run()

    @property
    def _height(self) -> int:
        room = max(3, self._terminal.rows - _OTHER_LINES)
        return max(1, min(_MOST_LINES, room, len(self._question.haystacks)))

    @property
    def _current(self) -> int | None:
        return self._found[self._pointer] if self._found else None

    def _on_typed(self, buffer: Buffer) -> None:
        self._found = self._matcher.search(buffer.text)
        self._pointer = self._first = 0
        self._message = None

    def _move(self, by: int) -> None:
        self._message = None
        if self._found:
            self._pointer = min(max(self._pointer + by, 0), len(self._found) - 1)

    def _step(self, by: int) -> None:
        """One line up or down, round the ends."""
        if self._found:
            self._message = None
            self._pointer = (self._pointer + by) % len(self._found)

    def _container(self) -> HSplit:
        question = self._question
        prompt: Fragments = [("class:qmark", "? "), ("class:question", question.title + "  ")]
        prompt_width = 2 + len(question.title) + 2
        return HSplit(
            [
                _line(lambda: question.top),
                VSplit(
                    [
                        Window(FormattedTextControl(prompt), width=prompt_width, height=1),
                        Window(BufferControl(self._buffer), height=1),
                        Window(
                            FormattedTextControl(self._draw_count), height=1, dont_extend_width=True
                        ),
                    ]
                ),
                _line(lambda: question.heading(self._terminal.columns)),
                Window(
                    FormattedTextControl(self._draw_lines),
                    height=lambda: self._height,
                    wrap_lines=False,
                ),
                Window(FormattedTextControl(self._draw_detail), height=2, wrap_lines=True),
                _line(self._draw_keys),
            ]
        )

    def _draw_count(self) -> Fragments:
        total = len(self._question.haystacks)
        if not self._buffer.text:
            return [("class:dim", f" {total:,} · type to search ")]
        return [("class:dim", f" {len(self._found):,} of {total:,} ")]

    def _draw_lines(self) -> Fragments:
        height, width = self._height, self._terminal.columns
        if not self._found:
            return [("class:dim", "  nothing matches; ctrl-u clears the search")]
        self._first = min(self._first, self._pointer)
        self._first = max(self._first, self._pointer - height + 1)
        drawn: Fragments = []
        for position in range(self._first, min(self._first + height, len(self._found))):
            pieces = self._question.line(self._found[position], width - 2)
            if position == self._pointer:
                drawn.append(("class:pointer", "❯ "))
                pieces = [("class:highlighted", piece[1]) for piece in pieces]
            else:
                drawn.append(("", "  "))
            drawn.extend(pieces)
            drawn.append(("", "\n"))
        return drawn[:-1]

    def _draw_detail(self) -> Fragments:
        if self._message is not None:
            return [(f"class:{self._tone}", "  " + self._message)]
        current = self._current
        return [("class:dim", "" if current is None else "  " + self._question.detail(current))]

    def _draw_keys(self) -> Fragments:
        keys = ["enter choose", "esc back", *self._question.key_help, "↑↓ move", "ctrl-c quit"]
        return [("class:dim", key_line(keys, self._terminal.columns))]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        moves: dict[str, Callable[[], None]] = {
            "up": lambda: self._step(-1),
            "c-p": lambda: self._step(-1),
            "down": lambda: self._step(1),
            "c-n": lambda: self._step(1),
            "pageup": lambda: self._move(-self._height),
            "pagedown": lambda: self._move(self._height),
            "home": lambda: self._move(-len(self._found)),
            "end": lambda: self._move(len(self._found)),
        }
        for key, move in moves.items():
            keys.add(key, eager=True)(lambda event, move=move: move())
        keys.add("enter", eager=True)(self._pick)
        for key, action in self._question.extra_keys.items():
            keys.add(key, eager=True)(lambda event, action=action: self._leave(event, action))
        keys.add("c-u", eager=True)(lambda event: self._clear())
        return keys

    def _clear(self) -> None:
        self._buffer.text = ""

    def _pick(self, event: KeyPressEvent) -> None:
        current = self._current
        if current is None:
            return
        refusal = self._question.refusal(current)
        if refusal is not None:
            self._message, self._tone = refusal, "problem"
            return
        self._leave(event, "pick")

    def _leave(self, event: KeyPressEvent, action: str) -> None:
        answer = ListAnswer(action=action, index=self._current, typed=self._buffer.text)
        event.app.exit(result=answer, style="")


def _line(draw: Callable[[], Fragments]) -> Window:
    return Window(FormattedTextControl(draw), height=1, wrap_lines=False)
