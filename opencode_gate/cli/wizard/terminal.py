"""The terminal the wizard talks on: keys from stdin, screens on stderr, one style for all.

stdout is data and is never touched. Cursor position requests are off: the screens are inline
and know their own height, and a late answer of a slow terminal would be read as typing.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec
from prompt_toolkit.application import Application
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth

Fragments = StyleAndTextTuples
"""Text with a style name for each piece."""

_T = TypeVar("_T")

ESCAPE_WAIT_S = 0.1
"""How long a lone Esc waits for the rest of an arrow key; arrows over a slow line need some."""

STYLE = Style(
    [
        ("qmark", "fg:ansicyan bold"),
        ("question", "bold"),
        ("answer", ""),
        ("pointer", "fg:ansicyan bold"),
        ("highlighted", "fg:ansicyan bold"),
        ("selected", ""),
        ("instruction", "dim"),
        ("text", ""),
        ("crumb", "dim"),
        ("brand", "bold"),
        ("dim", "dim"),
        ("heading", "dim"),
        ("ready", "fg:ansigreen"),
        ("label", "dim"),
        ("value", "bold"),
        ("problem", "fg:ansired"),
        ("done", "fg:ansigreen"),
        ("validation-toolbar", "fg:ansired bg:default noreverse"),
    ]
)


class Terminal(msgspec.Struct, frozen=True):
    """Where keys come from and where screens go."""

    input: Input
    output: Output

    @property
    def columns(self) -> int:
        """The width in cells now."""
        return self.output.get_size().columns

    @property
    def rows(self) -> int:
        """The height in lines now."""
        return self.output.get_size().rows


def real_terminal() -> Terminal:
    """The person's own terminal."""
    output = create_output(stdout=sys.stderr)
    if hasattr(output, "enable_cpr"):
        output.enable_cpr = False
    return Terminal(input=create_input(sys.stdin), output=output)


def with_leaving_keys(application: "Application[_T]", back: _T) -> "Application[_T]":
    """`application` with Esc ending it as `back` and Ctrl-C as `KeyboardInterrupt`."""
    keys = KeyBindings()

    @keys.add("escape", eager=True)
    def _escape(event: KeyPressEvent) -> None:
        event.app.exit(result=back, style="")

    @keys.add("c-c", eager=True)
    @keys.add("<sigint>")
    def _interrupt(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt(), style="")

    own = application.key_bindings
    application.key_bindings = keys if own is None else merge_key_bindings([own, keys])
    application.ttimeoutlen = ESCAPE_WAIT_S
    return application


def crumb(number: int, title: str) -> Fragments:
    """The first line of a step: where in the wizard the person is."""
    return [("class:brand", " ogate"), ("class:crumb", f" · step {number} of 4 · {title}\n")]


def plain_crumb(number: int, title: str) -> str:
    """`crumb` where only plain text can be shown."""
    return "".join(piece[1] for piece in crumb(number, title))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells, shortened with an ellipsis where it is too long."""
    if width <= 0:
        return ""
    length = len(text) if text.isascii() else get_cwidth(text)
    if length > width:
        kept, used = "", 0
        for character in text:
            used += get_cwidth(character)
            if used > width - 1:
                break
            kept += character
        text = kept + "…"
        length = get_cwidth(text)
    pad = " " * (width - length)
    return pad + text if right else text + pad


def key_line(keys: list[str], width: int) -> str:
    """The keys that work here, as many as fit, the first ones being the most needed."""
    line = " "
    for key in keys:
        grown = f"{line} · {key}" if line.strip() else f" {key}"
        if get_cwidth(grown) > width:
            break
        line = grown
    return line


Draw = Callable[[int], Fragments]
"""Makes a screen's text for a width in cells."""
