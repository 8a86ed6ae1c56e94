"""A session beside Opencode's own count and what providers reported, with every difference.

The invariant: Opencode's line and the differences below it add up to ogate's line, in every
column and exactly as they are written in the document.
"""

from typing import TYPE_CHECKING

from opencode_gate.cli import figures
from opencode_gate.cli.render import Block, Column, Table, Text
from opencode_gate.core.money import usd_text

if TYPE_CHECKING:
    from opencode_gate.session.reconciliation import Figures, Reconciled, Reconciliation

_COLUMNS = (
    Column("requests", "right"),
    Column("input", "right"),
    Column("output", "right"),
    Column("cost", "right"),
)


def reconciliation_document(found: "Reconciliation | None") -> dict[str, object] | None:
    """The comparison for machines; `None` where none was kept."""
    if found is None:
        return None
    return {
        "ogate": _figures_document(found.ledger),
        "opencode": _figures_document(found.agent),
        "reported": _figures_document(found.reported),
        "unpriced_requests": found.unpriced_requests,
        "differences": [
            {
                "reason": str(difference.reason),
                "cases": difference.cases,
                **_figures_document(difference.figures),
            }
            for difference in found.differences
        ],
        "conversations": [
            {
                "id": row.conversation_id,
                "parent_id": row.parent_id,
                "title": row.title,
                "ogate": _figures_document(row.ledger),
                "opencode": _figures_document(row.agent),
                "opencode_total": None
                if row.running_total is None
                else _figures_document(row.running_total),
                "reported": _figures_document(row.reported),
            }
            for row in found.rows
        ],
        "bypasses": [
            {
                "provider_name": bypass.provider_name,
                "model": bypass.model,
                "answers": bypass.answers,
                "is_expected": bypass.is_expected,
                "is_certain": bypass.is_certain,
                "mend": bypass.mend,
                **_figures_document(bypass.figures),
            }
            for bypass in found.bypasses
        ],
    }


def _figures_document(sums: "Figures") -> dict[str, object]:
    return {
        "requests": sums.requests,
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "cost_usd": usd_text(sums.cost_nano_usd),
    }


def reconciliation_blocks(headline: str, found: "Reconciliation | None") -> list[Block]:
    """The comparison for people."""
    blocks: list[Block] = [Text(f"{headline} · compared with Opencode", "bold"), Text("")]
    if found is None:
        return [
            *blocks,
            Text("not compared: Opencode's database could not be read when the session ended"),
        ]
    blocks += [_differences_table(found)]
    if found.bypasses:
        from opencode_gate.cli.summary_view import bypass_line

        blocks += [Text(""), *map(bypass_line, found.bypasses)]
    if found.rows:
        blocks += [Text(""), _conversations_table(found)]
    if found.unpriced_requests:
        requests = figures.counted(found.unpriced_requests, "request")
        blocks += [Text(""), Text(f"{requests} of unknown cost: in no amount here", "dim")]
    return blocks


def _differences_table(found: "Reconciliation") -> Table:
    from opencode_gate.session.check_line import WORDS

    return Table(
        columns=(Column("", wrap=True), *_COLUMNS),
        rows=[
            ("Opencode counted", *_cells(found.agent)),
            *(
                (f"  {WORDS[difference.reason]}", *_signed_cells(difference.figures))
                for difference in found.differences
            ),
        ],
        footer=("ogate counted", *_cells(found.ledger, found.unpriced_requests)),
    )


def _conversations_table(found: "Reconciliation") -> Table:
    return Table(
        columns=(
            Column("conversation", wrap=True),
            Column("ogate", "right"),
            Column("Opencode", "right"),
            Column("its total", "right"),
            Column("reported", "right"),
        ),
        rows=[
            (
                _name(row),
                _cost(row.ledger),
                _cost(row.agent),
                figures.NOTHING if row.running_total is None else _cost(row.running_total),
                _cost(row.reported) if row.reported.requests else figures.NOTHING,
            )
            for row in found.rows
        ],
    )


def _name(row: "Reconciled") -> str:
    name = row.title or row.conversation_id or "no conversation named"
    return f"  {name}" if row.parent_id else name


def _cells(sums: "Figures", unpriced_requests: int = 0) -> tuple[str, ...]:
    is_unknown = unpriced_requests and not sums.cost_nano_usd
    amount_nano_usd = None if is_unknown else sums.cost_nano_usd
    return (
        str(sums.requests),
        f"{sums.input_tokens:,}",
        f"{sums.output_tokens:,}",
        figures.money_text(amount_nano_usd, decimals=4, unknown_requests=unpriced_requests),
    )


def _signed_cells(sums: "Figures") -> tuple[str, ...]:
    return (
        f"{sums.requests:+}" if sums.requests else figures.NOTHING,
        f"{sums.input_tokens:+,}" if sums.input_tokens else figures.NOTHING,
        f"{sums.output_tokens:+,}" if sums.output_tokens else figures.NOTHING,
        _signed_cost(sums.cost_nano_usd),
    )


def _cost(sums: "Figures") -> str:
    return figures.money_text(sums.cost_nano_usd, decimals=4)


def _signed_cost(amount_nano_usd: int) -> str:
    if not amount_nano_usd:
        return figures.NOTHING
    sign = "+" if amount_nano_usd > 0 else "−"
    return f"{sign} {figures.money_text(abs(amount_nano_usd), decimals=4)}"
