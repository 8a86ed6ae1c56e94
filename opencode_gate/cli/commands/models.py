"""`ogate models`: what can be used now, with prices and limits.

The invariant: a price that is not known is shown as `?`, and every price says which book it is
from; a list shows the catalogue's (reading all of `genai-prices` would make it slow), `show` the
price that will be charged to a session.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from opencode_gate.cli import figures, price_view
from opencode_gate.cli.options import AsJson
from opencode_gate.cli.render import Block, Column, Fact, Facts, Result, Table, Text

if TYPE_CHECKING:
    from opencode_gate.catalog.prices import PriceAnswer
    from opencode_gate.catalog.rows import ModelRow
    from opencode_gate.config.settings import Settings
    from opencode_gate.session.discovery import Discovery

app = typer.Typer()


@app.command("list")
def list_models(
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="Only this one, ready or not.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only models with all these words.")
    ] = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Of every provider in the catalogue.")
    ] = False,
    as_json: AsJson = False,
) -> Result:
    """Models of the providers that are ready, with list prices in USD per million tokens."""
    from opencode_gate.catalog.prices import PriceBook

    settings = _settings()
    found = _discover(settings)
    book = PriceBook(found.catalogue, settings)
    chosen = list(_chosen(found, provider, search, show_all))
    listed = [(row, book.listed(row)) for row in chosen]
    return Result(
        data={
            "catalogue_date": found.catalogue.date,
            "models": [_document(row, answer) for row, answer in listed],
        },
        blocks=() if as_json else [_table(listed)],
        talk=()
        if as_json
        else [f"USD per million tokens, catalogue of {found.catalogue.date}; ? is unknown"],
    )


@app.command()
def show(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As provider/model: anthropic/claude-sonnet-5")
    ],
    as_json: AsJson = False,
) -> Result:
    """One model: limits, abilities, and its price line by line."""
    from opencode_gate.catalog.prices import PriceBook

    settings = _settings()
    found = _discover(settings)
    row = _row(found, model)
    own = {row.provider_id: _own_models(found, row.provider_id)}
    book = PriceBook(found.catalogue, settings, own)
    answers = tuple(book.answers(row.provider_id, row.id))
    document = {
        **_document(row, answers[0] if answers else None),
        **price_view.explanation_document(answers),
        "is_covered_by_plan": _is_covered(found, row.provider_id),
    }
    return Result(data=document, blocks=() if as_json else _explained(found, row, answers))


@app.command()
def refresh(as_json: AsJson = False) -> Result:
    """Fetches the newest catalogue from models.dev now."""
    from opencode_gate.catalog import refresh as refreshing
    from opencode_gate.catalog.catalogue import open_catalogue
    from opencode_gate.config.paths import paths

    outcome = refreshing.refresh(paths())
    catalogue = open_catalogue(paths(), _settings())
    models = sum(catalogue.model_counts().values())
    done = "fetched" if outcome.outcome == "updated" else "still the newest"
    line = (
        f"catalogue of {catalogue.date} {done}: "
        f"{len(catalogue.providers())} providers, {models} models"
    )
    return Result(
        data={
            "outcome": outcome.outcome,
            "catalogue_date": catalogue.date,
            "provider_count": len(catalogue.providers()),
            "model_count": models,
        },
        talk=() if as_json else [line],
    )


def _settings() -> "Settings":
    from opencode_gate.config.paths import paths
    from opencode_gate.config.settings import load_settings

    return load_settings(paths(), os.environ)


def _discover(settings: "Settings") -> "Discovery":
    from opencode_gate.config.paths import paths
    from opencode_gate.session.discovery import discover

    return discover(paths(), settings, os.environ)


def _chosen(
    found: "Discovery", provider: str | None, search: str | None, show_all: bool
) -> "Iterator[ModelRow]":
    if provider is not None:
        providers: Iterable[str] = (provider,)
    elif show_all:
        providers = sorted({*found.catalogue.providers(), *found.usable})
    else:
        providers = sorted(found.usable)
    words = search.lower().split() if search is not None else []
    for provider_id in providers:
        for row in _models_of(found, provider_id).values():
            text = f"{row.provider_id}/{row.id} {row.name}".lower()
            if all(word in text for word in words):
                yield row


def _models_of(found: "Discovery", provider_id: str) -> "Mapping[str, ModelRow]":
    """The models of a provider; without a key only those that answer without one."""
    usable = found.usable.get(provider_id)
    if usable is not None and usable.models is not None:
        return usable.models
    own = _own_models(found, provider_id)
    if own and provider_id not in found.catalogue.providers():
        return own
    models = found.catalogue.models(provider_id)
    if usable is not None and usable.source.kind == "none" and usable.row.source == "catalogue":
        return {
            key: row for key, row in models.items() if row.price is not None and row.price.is_free
        }
    return {**models, **own}


def _own_models(found: "Discovery", provider_id: str) -> "Mapping[str, ModelRow]":
    """Those that the user's own Opencode configuration describes."""
    of_provider = (one.models for one in found.user_config.custom if one.row.id == provider_id)
    return next(of_provider, {})


def _row(found: "Discovery", text: str) -> "ModelRow":
    """The model meant by `provider/model`.

    Raises:
        UsageError: `unknown-provider` or `unknown-model`, with what may have been meant.
    """
    from opencode_gate.catalog.catalogue import unknown_model
    from opencode_gate.cli.model_names import no_provider_named

    provider_id, slash, model_id = text.partition("/")
    if not slash or (
        provider_id not in found.catalogue.providers() and provider_id not in found.usable
    ):
        raise no_provider_named(found.catalogue, text)
    models = (
        {**found.catalogue.models(provider_id)}
        if provider_id in found.catalogue.providers()
        else {}
    )
    models.update(_models_of(found, provider_id))
    if model_id not in models:
        raise unknown_model(provider_id, model_id, models)
    return models[model_id]


def _document(row: "ModelRow", answer: "PriceAnswer | None") -> dict[str, object]:
    return {
        "provider": row.provider_id,
        "id": row.id,
        "name": row.name,
        "family": row.family,
        "release_date": row.release_date,
        "status": row.status,
        "context_tokens": row.context_tokens,
        "output_tokens": row.output_tokens,
        "tool_call": row.tool_call,
        "reasoning": row.reasoning,
        "price_source": answer.source if answer is not None else None,
        "price_usd_per_million": price_view.price_document(answer.price)
        if answer is not None
        else None,
    }


def _table(listed: "list[tuple[ModelRow, PriceAnswer | None]]") -> Block:
    if not listed:
        return Text("no model is ready: ogate keys add PROVIDER, or ogate models list PROVIDER")
    return Table(
        columns=(
            Column("model"),
            Column("context", "right"),
            Column("output", "right"),
            Column("tools"),
            Column("$ in", "right"),
            Column("$ cached", "right"),
            Column("$ out", "right"),
        ),
        rows=[
            (
                f"{row.provider_id}/{row.id}",
                figures.count_text(row.context_tokens),
                figures.count_text(row.output_tokens),
                _yes_no(row.tool_call),
                _amount(answer, "input"),
                _amount(answer, "cache_read"),
                _amount(answer, "output"),
            )
            for row, answer in listed
        ],
    )


def _explained(
    found: "Discovery", row: "ModelRow", answers: "Sequence[PriceAnswer]"
) -> "list[Block]":
    lines = [
        ("model", f"{row.provider_id}/{row.id}"),
        ("name", row.name),
        ("status", row.status),
        ("released", row.release_date),
        ("context", f"{figures.count_text(row.context_tokens)} tokens"),
        ("output", f"{figures.count_text(row.output_tokens)} tokens"),
        ("tools", _yes_no(row.tool_call)),
        ("reasoning", _yes_no(row.reasoning)),
        ("price", _price_line(answers)),
        ("sign-in", _COVERED if _is_covered(found, row.provider_id) else None),
    ]
    facts = Facts([Fact(label, text) for label, text in lines if text])
    return [facts, *price_view.explanation_blocks(answers)]


_COVERED = (
    "covered by plan: what Opencode sends with its sign-in passes the gateway by,"
    " and this list price is not charged"
)


def _is_covered(found: "Discovery", provider_id: str) -> bool:
    """Whether a subscription pays for this provider, as far as nobody chose a key instead."""
    return provider_id in found.sign_ins and found.sign_ins[provider_id] != "key"


def _price_line(answers: "Sequence[PriceAnswer]") -> str | None:
    if not answers:
        return "unknown; `ogate config set` a price of your own under prices"
    return "free" if answers[0].price.is_free else None


def _amount(answer: "PriceAnswer | None", name: str) -> str:
    amount: Decimal | None = getattr(answer.price, name) if answer is not None else None
    return figures.UNKNOWN if amount is None else format(amount.normalize(), "f")


def _yes_no(flag: bool | None) -> str:
    return figures.UNKNOWN if flag is None else "yes" if flag else "no"
