"""A price explained: one line for each kind of token, its tiers, where it is from and since when.

The invariant: a kind without a price of its own is said to be charged as the kind it is a part
of, never left out; and a book that is not used is shown as such.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Column, Fact, Facts, Table, Text

if TYPE_CHECKING:
    from opencode_gate.catalog.prices import PriceAnswer
    from opencode_gate.catalog.rows import ModelPrice

PRICE_NAMES = (
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "input_audio",
    "output_audio",
)
_PART_OF = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "input_audio": "input",
    "output_audio": "output",
}
"""What a kind of token is charged as where it has no price of its own."""

_SHOWN_IF_PRICED = ("input_audio", "output_audio")


def price_document(price: "ModelPrice") -> dict[str, object]:
    """Prices for machines: exact decimals in USD per million tokens, null where unknown."""
    own: dict[str, object] = {name: _decimal_text(price, name) for name in PRICE_NAMES}
    if price.tiers:
        own["tiers"] = [
            {"above_input_tokens": tier.above_input_tokens, **price_document(tier.price)}
            for tier in price.tiers
        ]
    return own


def explanation_document(answers: "Sequence[PriceAnswer]") -> dict[str, object]:
    """What every book says, the one that is used first, and its lines one by one."""
    if not answers:
        return {"price_lines": [], "prices": []}
    used = answers[0].price
    return {
        "price_lines": [
            {
                "kind": name,
                "usd_per_million": _decimal_text(used, name),
                "charged_as": charged_as(used, name),
                "tiers": [
                    {
                        "above_input_tokens": tier.above_input_tokens,
                        "usd_per_million": _decimal_text(tier.price, name),
                    }
                    for tier in used.tiers
                ],
            }
            for name in _lines(used)
        ],
        "prices": [
            {
                "source": answer.source,
                "is_used": number == 0,
                "since": answer.since.isoformat() if answer.since is not None else None,
                "until": answer.until.isoformat() if answer.until is not None else None,
                "hours": answer.hours,
                "variants": list(answer.variants),
                "note": answer.note,
                "address": answer.address,
                "usd_per_million": price_document(answer.price),
                "usd_per_request": _decimal_text(answer.price, "per_request"),
            }
            for number, answer in enumerate(answers)
        ],
    }


def explanation_blocks(answers: "Sequence[PriceAnswer]") -> list[Block]:
    """The price for people, one line a kind; nothing where no book has one."""
    if not answers:
        return []
    used, *others = answers
    blocks: list[Block] = [Text("")]
    if not used.price.is_free:
        blocks += [_table(used.price), Text("")]
    facts = [Fact(label, text) for label, text in _facts(used) if text]
    facts += [
        Fact("not used", f"{other.source}{_span(other)}: {amounts_line(other.price)}")
        for other in others
    ]
    return [*blocks, Facts(facts)]


def amounts_line(price: "ModelPrice") -> str:
    """All of a price in one line."""
    if price.is_free:
        return "free"
    known = [
        f"{_label(name)} $ {amount}"
        for name in PRICE_NAMES
        if (amount := _decimal_text(price, name)) is not None
    ]
    return " · ".join(known) + " per million tokens"


def charged_as(price: "ModelPrice", name: str) -> str | None:
    """The kind that a kind of token is charged as; `None` where it has a price, or nobody has."""
    kind: str | None = name
    while kind is not None and getattr(price, kind) is None:
        kind = _PART_OF.get(kind)
    return kind if kind != name else None


def _lines(price: "ModelPrice") -> list[str]:
    return [
        name
        for name in PRICE_NAMES
        if name not in _SHOWN_IF_PRICED or getattr(price, name) is not None
    ]


def _table(price: "ModelPrice") -> Table:
    bounds = [figures.count_text(tier.above_input_tokens) for tier in price.tiers]
    return Table(
        columns=(
            Column("USD per million tokens"),
            Column(f"up to {bounds[0]} input" if bounds else "price", "right"),
            *(Column(f"above {bound}", "right") for bound in bounds),
        ),
        rows=[
            (
                _label(name),
                _cell(price, name),
                *(_cell(tier.price, name) for tier in price.tiers),
            )
            for name in _lines(price)
        ],
    )


def _cell(price: "ModelPrice", name: str) -> str:
    amount = _decimal_text(price, name)
    if amount is not None:
        return f"$ {amount}"
    kind = charged_as(price, name)
    return f"as {_label(kind)}" if kind is not None else figures.UNKNOWN


def _facts(answer: "PriceAnswer") -> "Iterator[tuple[str, str]]":
    yield "price from", f"{answer.source}{_span(answer)}"
    if answer.source == "config.toml":
        yield "written as", answer.note or ""
    else:
        yield "remark", answer.note or ""
    yield "read from", answer.address or ""
    if answer.price.per_request is not None:
        yield "each request", f"$ {_decimal_text(answer.price, 'per_request')} besides its tokens"
    if answer.price.tiers:
        yield (
            "long requests",
            "above its limit the whole request is priced higher, cached input too",
        )
    if answer.variants:
        yield "other rates", f"{', '.join(answer.variants)}: used where the provider says it did so"


def _span(answer: "PriceAnswer") -> str:
    days = [
        f"{word} {day.isoformat()}"
        for word, day in (("since", answer.since), ("until", answer.until))
        if day is not None
    ]
    return "".join(f", {part}" for part in (" ".join(days), answer.hours) if part)


def _label(name: str) -> str:
    return {"cache_write_1h": "cache write, 1 hour"}.get(name, name.replace("_", " "))


def _decimal_text(price: "ModelPrice", name: str) -> str | None:
    amount = getattr(price, name)
    return None if amount is None else format(amount, "f")
