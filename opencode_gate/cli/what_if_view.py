"""What the same tokens would have cost elsewhere: a document, and a table with bars.

`ogate usage --what-if` and `ogate sessions show --what-if` are both `compare` over their own
exchanges. The invariant: every amount stands beside what it leaves out.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.bars import Bar, bar_lines
from opencode_gate.cli.render import Block, Column, Table, Text
from opencode_gate.core.money import usd_text

if TYPE_CHECKING:
    from opencode_gate.catalog.prices import PriceBook
    from opencode_gate.catalog.what_if import Alternative, Caveat, OtherModel, Sum, WhatIf
    from opencode_gate.ledger.records import ExchangeRecord

_AS_IT_WAS = "as it was"
_WIDEST = 100


def compare(exchanges: "Iterable[ExchangeRecord]", names: Sequence[str]) -> "WhatIf":
    """What the exchanges would have cost on the models named, with the price book in force.

    Args:
        names: each `provider/model`, or several with commas.

    Raises:
        UsageError: a name that is no model's (`unknown-model`, `unknown-provider`).
    """
    from opencode_gate.catalog.what_if import what_if
    from opencode_gate.cli.price_book import price_book
    from opencode_gate.ledger.totals import asks_for_cost

    book = price_book()
    split = (name.strip() for given in names for name in given.split(","))
    models = [_model(book, name) for name in dict.fromkeys(split) if name]
    return what_if((one for one in exchanges if asks_for_cost(one)), models, book)


def what_if_document(found: "WhatIf") -> dict[str, object]:
    """The comparison for machines; amounts are exact decimals in USD, null where unknown."""
    return {
        "input_tokens": found.input_tokens,
        "cache_read_input_tokens": found.cache_read_input_tokens,
        "output_tokens": found.output_tokens,
        "actual": _sum_document(found.actual),
        "models": [_alternative_document(one) for one in found.alternatives],
        "caveats": [_caveat_document(caveat) for caveat in found.caveats],
    }


def what_if_blocks(found: "WhatIf", title: str) -> list[Block]:
    """The comparison for people; `title` says whose tokens these are."""
    if not found.actual.requests:
        return [Text(f"{title}: nothing was counted")]
    tokens = (
        f"{figures.counted(found.actual.requests, 'request')},"
        f" {figures.count_text(found.input_tokens)} in"
        f" ({figures.percent_text(found.cache_read_input_tokens, found.input_tokens)} cached),"
        f" {figures.count_text(found.output_tokens)} out"
    )
    blocks: list[Block] = [Text(f"{title}: {tokens}", "bold"), Text(""), _table(found), Text("")]
    blocks += map(Text, bar_lines(_bars(found), width=_width()))
    notes = [
        f"{one.model.name}: {_caveat_text(caveat)}"
        for one in found.alternatives
        for caveat in one.caveats
    ]
    fewest = min(one.compared_requests for one in found.alternatives)
    if fewest < found.actual.requests:
        notes.append("`against` compares the requests whose cost is known on both sides")
    notes += [_caveat_text(caveat) for caveat in found.caveats]
    return [*blocks, Text(""), *(Text(note, "dim") for note in notes)]


def _model(book: "PriceBook", name: str) -> "OtherModel":
    from opencode_gate.catalog.catalogue import unknown_model
    from opencode_gate.catalog.what_if import OtherModel
    from opencode_gate.cli.model_names import no_provider_named

    catalogue = book.catalogue
    provider_id, slash, model_id = name.partition("/")
    is_provider = bool(slash) and provider_id in catalogue.providers()
    rows = catalogue.models(provider_id) if is_provider else {}
    if model_id not in rows and not (slash and book.knows(provider_id, model_id)):
        if not is_provider:
            raise no_provider_named(catalogue, name)
        raise unknown_model(provider_id, model_id, rows)
    row = rows.get(model_id)
    return OtherModel(
        provider_id=provider_id,
        model_id=model_id,
        context_tokens=row.context_tokens if row is not None else None,
    )


def _sum_document(total: "Sum") -> dict[str, object]:
    cost = total.cost_nano_usd
    return {
        "requests": total.requests,
        "cost_usd": None if cost is None else usd_text(cost),
        "cost_quality": str(total.cost_quality),
        "unknown_cost_requests": total.unknown_cost_requests,
    }


def _alternative_document(one: "Alternative") -> dict[str, object]:
    ratio = _ratio(one)
    return {
        "provider_name": one.model.provider_id,
        "model": one.model.model_id,
        **_sum_document(one.total),
        "price_sources": list(one.price_sources),
        "compared": {
            "requests": one.compared_requests,
            "actual_cost_usd": usd_text(one.compared_actual_nano_usd),
            "cost_usd": usd_text(one.compared_cost_nano_usd),
            "ratio": None if ratio is None else round(ratio, 4),
        },
        "caveats": [_caveat_document(caveat) for caveat in one.caveats],
    }


def _caveat_document(caveat: "Caveat") -> dict[str, object]:
    return {"code": caveat.code, "text": caveat.text, "requests": caveat.requests}


def _caveat_text(caveat: "Caveat") -> str:
    if caveat.requests is None:
        return caveat.text
    return f"{figures.counted(caveat.requests, 'request')}: {caveat.text}"


def _table(found: "WhatIf") -> Table:
    return Table(
        columns=(
            Column("model", wrap=True),
            Column("cost", "right"),
            Column("against", "right"),
            Column("prices from", wrap=True),
        ),
        rows=[
            (_AS_IT_WAS, _cost(found.actual), "", ""),
            *(
                (one.model.name, _cost(one.total), _against(one), ", ".join(one.price_sources))
                for one in found.alternatives
            ),
        ],
    )


def _bars(found: "WhatIf") -> list[Bar]:
    sums = [(_AS_IT_WAS, found.actual)]
    sums += [(one.model.name, one.total) for one in found.alternatives]
    return [
        Bar(
            label=name,
            value=total.cost_nano_usd,
            text=figures.brief_money(
                total.cost_nano_usd,
                total.cost_quality,
                unknown_requests=total.unknown_cost_requests,
            ),
        )
        for name, total in sums
    ]


def _cost(total: "Sum") -> str:
    return figures.money_text(
        total.cost_nano_usd, total.cost_quality, unknown_requests=total.unknown_cost_requests
    )


def _ratio(one: "Alternative") -> float | None:
    """What it would cost for each dollar it did, over requests known on both sides."""
    if not one.compared_requests or not one.compared_actual_nano_usd:
        return None
    return one.compared_cost_nano_usd / one.compared_actual_nano_usd


def _against(one: "Alternative") -> str:
    ratio = _ratio(one)
    if ratio is None:
        return figures.NOTHING
    if ratio >= 10:
        return f"x {ratio:,.0f}"
    change = round((ratio - 1) * 100)
    return "the same" if not change else f"{'+' if change > 0 else '-'} {abs(change)} %"


def _width() -> int:
    import shutil

    return min(_WIDEST, shutil.get_terminal_size().columns)
