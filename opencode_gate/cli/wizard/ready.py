"""The last screen: everything the session starts with, and one key to change each part."""

from typing import Literal, TypeAlias

from prompt_toolkit.application import Application
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import Dimension, FormattedTextControl, HSplit, Layout, Window

from opencode_gate.cli.wizard.columns import model_summary
from opencode_gate.cli.wizard.terminal import (
    STYLE,
    Fragments,
    Terminal,
    crumb,
    fit,
    key_line,
    with_leaving_keys,
)
from opencode_gate.session.options import (
    ModelOption,
    Offer,
    ProviderGroup,
    ProviderOption,
    order_providers,
)

ReadyAction: TypeAlias = Literal["start", "model", "provider", "import", "back"]

_LABEL = 13


def ask_ready(
    offer: Offer,
    terminal: Terminal,
    *,
    provider: ProviderOption,
    model: ModelOption,
    small_model_id: str | None,
    message: tuple[str, str] | None,
) -> ReadyAction:
    """Shows the screen until one of its keys is pressed; `message` is a style and a text.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    key_words = ["enter start", "m model", "p provider"]
    actions: dict[str, ReadyAction] = {"enter": "start", "m": "model", "p": "provider"}
    if provider.can_import:
        key_words.append(f"i copy key to {offer.key_store}")
        actions["i"] = "import"
    rows = _rows(offer, provider, model, small_model_id)
    body = FormattedTextControl(
        lambda: _draw(rows, terminal.columns), show_cursor=False, focusable=True
    )
    last = FormattedTextControl(
        lambda: _draw_end(message, [*key_words, "esc back"], terminal.columns)
    )
    application: Application[ReadyAction] = Application(
        # On a low screen the facts are cut, never the message and the keys below them.
        layout=Layout(
            HSplit(
                [
                    Window(body, height=Dimension(min=1), always_hide_cursor=True),
                    Window(last, dont_extend_height=True),
                ]
            )
        ),
        key_bindings=_keys(actions),
        style=STYLE,
        input=terminal.input,
        output=terminal.output,
        erase_when_done=True,
    )
    return with_leaving_keys(application, "back").run()


def _keys(actions: dict[str, ReadyAction]) -> KeyBindings:
    keys = KeyBindings()
    for key, action in actions.items():

        def leave(event: KeyPressEvent, action: ReadyAction = action) -> None:
            event.app.exit(result=action, style="")

        keys.add(key, eager=True)(leave)
    return keys


def _rows(
    offer: Offer, provider: ProviderOption, model: ModelOption, small_model_id: str | None
) -> list[tuple[str, str, str]]:
    """Label, value, and what is said after the value."""
    rows = [
        ("provider", provider.name, provider.where or ""),
        ("model", model.id, model_summary(model)),
        (
            "small model",
            small_model_id if small_model_id is not None else "Opencode's own choice",
            "titles and summaries",
        ),
        *([("budget", offer.budget, "")] if offer.budget else []),
        ("folder", str(offer.folder), ""),
        ("Opencode", offer.agent_version or "version unknown", ""),
    ]
    others = [
        option.name
        for option in order_providers(offer.providers)
        if option.group <= ProviderGroup.LOCAL and option.id != provider.id
    ]
    if others:
        rows.append(("also routed", ", ".join(others), "pick their models inside Opencode"))
    if offer.keys_in_use:
        rows.append(
            (
                "keys used",
                ", ".join(offer.keys_in_use),
                "from the environment, hidden from Opencode",
            )
        )
    return rows


def _draw(rows: list[tuple[str, str, str]], width: int) -> Fragments:
    drawn = [*crumb(4, "Ready"), ("", "\n")]
    room = width - _LABEL - 3
    for label, value, aside in rows:
        drawn.append(("class:label", f"  {fit(label, _LABEL)}"))
        for number, part in enumerate(_wrapped(value, room)):
            drawn.append(("", "" if number == 0 else "\n" + " " * (_LABEL + 2)))
            drawn.append(("class:value", part))
        beside = len(value) + 2 + len(aside) <= room
        for number, part in enumerate(_wrapped(aside, room) if aside else []):
            drawn.append(("", "  " if beside and number == 0 else "\n" + " " * (_LABEL + 2)))
            drawn.append(("class:dim", part))
        drawn.append(("", "\n"))
    return drawn


def _draw_end(message: tuple[str, str] | None, key_words: list[str], width: int) -> Fragments:
    drawn: Fragments = []
    if message is not None:
        style, text = message
        drawn.extend((style, f"  {part}\n") for part in _wrapped(text, width - 3))
        drawn.append(("", "\n"))
    drawn.append(("class:dim", key_line(key_words, width)))
    return drawn


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(10, width)) or [""]
