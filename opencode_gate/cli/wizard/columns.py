"""How a provider and a model look as one line, at any width.

Prices are USD per million tokens. Unknown is `?`, free is `free`; a number is never guessed.
"""

from decimal import Decimal

from opencode_gate.cli.wizard.terminal import Fragments, fit
from opencode_gate.session.options import ModelOption, ProviderGroup, ProviderOption

_CONTEXT, _PRICE, _TOOLS = 8, 9, 7
_NAME_FROM_COLUMNS = 100
"""A model's display name gets a column of its own from this width on."""


def provider_line(option: ProviderOption, width: int) -> Fragments:
    """A dot for what is usable now, the name, and where its key lies or why it is no use."""
    name, status = _provider_widths(width)
    usable = option.group <= ProviderGroup.PRACTICE
    if option.group == ProviderGroup.UNSUPPORTED:
        status_piece = ("class:dim", fit("not through the gateway", status))
    else:
        status_piece = (
            "class:ready" if option.where else "class:dim",
            fit(_status(option), status),
        )
    style = "class:dim" if option.group == ProviderGroup.UNSUPPORTED else ""
    return [
        ("class:ready", "● " if usable else "  "),
        (style, fit(option.name, name) + "  "),
        status_piece,
    ]


def provider_heading(width: int) -> Fragments:
    """The titles above `provider_line`."""
    name, status = _provider_widths(width - 2)
    return [("class:heading", "    " + fit("provider", name) + "  " + fit("key", status))]


def provider_detail(option: ProviderOption, key_store: str) -> str:
    """What else there is to say about a provider."""
    if option.why_not is not None:
        return f"{option.id} · {option.why_not}"
    if option.can_import:
        return f"{option.id} · tab copies this key into the {key_store}"
    if option.needs_key and option.where is None and option.key_page is not None:
        return f"{option.id} · keys: {option.key_page}"
    return option.id


def _status(option: ProviderOption) -> str:
    if option.where is not None:
        return option.where
    return "needs a key" if option.needs_key else ""


def _provider_widths(width: int) -> tuple[int, int]:
    status = min(36, max(20, width // 2 - 2))
    return min(44, max(10, width - status - 4)), status


def model_line(option: ModelOption, width: int) -> Fragments:
    """The id, the context, both prices, and whether Opencode can use tools with it."""
    id_width, name_width = _model_widths(width)
    cells = fit(option.id, id_width)
    style = "class:dim" if option.tool_call is False else ""
    pieces: Fragments = [(style, cells)]
    if name_width:
        pieces.append(("class:dim", " " + fit(option.name, name_width - 1)))
    pieces.append((style, fit(context_text(option.context_tokens), _CONTEXT, right=True)))
    pieces.append((style, fit(price_text(option.input_usd_per_million), _PRICE, right=True)))
    pieces.append((style, fit(price_text(option.output_usd_per_million), _PRICE, right=True)))
    pieces.append((style, fit(_tools_text(option.tool_call), _TOOLS, right=True)))
    return pieces


def model_heading(width: int) -> Fragments:
    """The titles above `model_line`."""
    id_width, name_width = _model_widths(width - 2)
    text = "  " + fit("model", id_width)
    if name_width:
        text += " " + fit("name", name_width - 1)
    text += fit("context", _CONTEXT, right=True)
    text += fit("$/M in", _PRICE, right=True) + fit("$/M out", _PRICE, right=True)
    return [("class:heading", text + fit("tools", _TOOLS, right=True))]


def model_detail(option: ModelOption) -> str:
    """What else there is to say about a model."""
    parts = [option.name]
    if option.is_last_used:
        parts.append("used last here")
    if option.release_date is not None:
        parts.append(f"released {option.release_date}")
    if option.tool_call is False:
        parts.append("no tools: Opencode can talk with it but not work")
    return " · ".join(parts)


def _model_widths(width: int) -> tuple[int, int]:
    room = max(10, width - _CONTEXT - 2 * _PRICE - _TOOLS)
    if width + 2 < _NAME_FROM_COLUMNS:
        return min(room, 60), 0
    id_width = min(48, room * 3 // 5)
    return id_width, min(40, room - id_width)


def context_text(tokens: int | None) -> str:
    """A context window in thousands or millions of tokens."""
    if tokens is None:
        return "?"
    if tokens >= 999_500:
        return f"{tokens / 1_000_000:.1f}".removesuffix(".0") + "M"
    return f"{tokens / 1000:.0f}k" if tokens >= 1000 else str(tokens)


def price_text(usd_per_million: Decimal | None) -> str:
    """A price with two decimals, or as many more as it needs, up to four."""
    if usd_per_million is None:
        return "?"
    if usd_per_million == 0:
        return "free"
    if usd_per_million < Decimal("0.0001"):
        return "<0.0001"
    text = f"{usd_per_million:.4f}"
    return text.removesuffix("0").removesuffix("0")


def _tools_text(tool_call: bool | None) -> str:
    if tool_call is None:
        return "?"
    return "yes" if tool_call else "no"


def model_summary(option: ModelOption) -> str:
    """A model's facts on the last screen."""
    context = context_text(option.context_tokens)
    into, out = option.input_usd_per_million, option.output_usd_per_million
    if into is None and out is None:
        price = "price unknown"
    elif into == 0 and out == 0:
        price = "free"
    else:
        price = f"{_dollars(into)} in, {_dollars(out)} out per million"
    return f"{context} context · {price}" if option.context_tokens is not None else price


def _dollars(usd_per_million: Decimal | None) -> str:
    text = price_text(usd_per_million)
    return f"${text}" if text[0].isdigit() else text
