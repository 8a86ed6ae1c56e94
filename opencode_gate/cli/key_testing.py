"""`ogate keys test`: which keys are meant, and what is asked of the provider.

A test stands for one key as a session would use it: a named one, a provider's default, or
one that was only found. The invariant: a store that cannot be opened is an outcome of the
test, not the end of all tests.
"""

import os
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from opencode_gate.cli.key_view import place_of
from opencode_gate.cli.render import Block, Column, Table, talk
from opencode_gate.core.errors import CredentialError, UsageError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.entries import GATEWAY_KEYS
from opencode_gate.credentials.verdicts import KeyTest

if TYPE_CHECKING:
    from opencode_gate.catalog.catalogue import Catalogue
    from opencode_gate.catalog.rows import ModelRow, ProviderRow
    from opencode_gate.credentials.entries import CredentialEntry
    from opencode_gate.credentials.found import FoundKey
    from opencode_gate.credentials.vault import Vault


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One key to test: a stored one, a found one, or none for a provider that needs none."""

    provider_id: str
    where: str
    entry: "CredentialEntry | None" = None
    found: "FoundKey | None" = None

    @property
    def name(self) -> str | None:
        """The name of a stored key."""
        return self.entry.name if self.entry is not None else None

    def document(self, test: KeyTest) -> dict[str, object]:
        """The outcome for `--json`."""
        return {
            "provider_id": self.provider_id,
            "name": self.name,
            "where": self.where,
            "result": test.result,
            "detail": test.detail,
        }


def targets(
    catalogue: "Catalogue",
    vault: "Vault",
    found: "Sequence[FoundKey]",
    provider: str | None,
    name: str | None,
) -> list[Target]:
    """The keys meant: one by its name, a provider's own, or all.

    Raises:
        CredentialError: no such key, or the provider has none (`missing-credential`).
        UsageError: no such provider.
    """
    if provider is not None and name is not None:
        return [_stored(vault.index.require(provider, name))]
    # Virtual keys lie among them, and no provider knows those.
    entries = [
        entry
        for entry in vault.index.entries(provider)
        if not entry.provider_id.startswith(GATEWAY_KEYS)
    ]
    chosen = [_stored(entry) for entry in entries]
    chosen += [
        Target(provider_id=key.provider_id, where=key.label, found=key)
        for key in found
        if provider in (None, key.provider_id)
    ]
    if chosen or provider is None:
        return chosen
    row = catalogue.provider(provider)
    if not row.keyless:
        from opencode_gate.credentials.resolve import missing_credential

        raise missing_credential(row, vault.index)
    return [Target(provider_id=provider, where="no key needed")]


def test_one(
    catalogue: "Catalogue", vault: "Vault", target: Target, *, prompt: bool, model: str | None
) -> KeyTest:
    """Tests one key and tags it with the outcome.

    Raises:
        UsageError: `--prompt` and no model known to send it to.
        ConfigError: a header of the provider needs a variable that is not set.
    """
    from opencode_gate.catalog.header_values import sent_headers
    from opencode_gate.credentials.testing import test_key

    row = catalogue.provider(target.provider_id)
    if row.source == "builtin" and row.keyless:
        return KeyTest(result="ok", detail="built in, nothing to test")
    row = replace(row, headers=sent_headers(row.headers, os.environ))
    talk(f"asking {row.name} …")
    try:
        secret = _secret(vault, target)
    except CredentialError as error:
        return KeyTest(result="unclear", detail=error.message, hint=error.hint)
    if not prompt:
        test = test_key(row, secret)
    else:
        chosen = _model(catalogue, row, model)
        if chosen is not None and chosen.npm is not None:
            row = replace(row, npm=chosen.npm)
        test = test_key(row, secret, prompt_model=model if chosen is None else chosen.id)
    if target.entry is not None:
        vault.mark_tested(target.entry, test.result)
    return test


def outcome_table(outcomes: "Sequence[tuple[Target, KeyTest]]") -> list[Block]:
    """The outcomes for people; nothing where nothing was tested."""
    rows = [
        (target.provider_id, target.name or "", target.where, test.result, test.detail)
        for target, test in outcomes
    ]
    columns = [Column(title) for title in ("provider", "name", "where", "result")]
    return [Table([*columns, Column("what was found", wrap=True)], rows)] if rows else []


def outcome_talk(outcomes: "Sequence[tuple[Target, KeyTest]]") -> list[str]:
    """What to do next, once for each provider it concerns."""
    if not outcomes:
        return ["no keys to test; `ogate keys add PROVIDER` keeps one"]
    hints = (
        f"{target.provider_id}: {test.hint}" for target, test in outcomes if test.hint is not None
    )
    return list(dict.fromkeys(hints))


def _secret(vault: "Vault", target: Target) -> Secret:
    if target.entry is not None:
        return vault.secret(target.entry)
    return target.found.secret if target.found is not None else Secret("")


def _stored(entry: "CredentialEntry") -> Target:
    return Target(provider_id=entry.provider_id, where=place_of(entry), entry=entry)


def _model(catalogue: "Catalogue", row: "ProviderRow", model: str | None) -> "ModelRow | None":
    """The model to prompt: the one asked for (`None` if the catalogue lacks it) or the cheapest."""
    models = catalogue.models(row.id)
    if model is not None:
        return models.get(model)
    priced = [found for found in models.values() if found.status != "deprecated"]
    if not priced:
        raise UsageError(
            "usage",
            f"no model of {row.id} is known",
            hint=f"ogate keys test {row.id} --prompt --model MODEL",
        )
    return min(priced, key=_cost_of_a_word)


def _cost_of_a_word(model: "ModelRow") -> tuple[bool, Decimal, str]:
    """Cheapest first, models that cost something before free ones: those prove no credit."""
    price = model.price
    if price is None or price.output is None or price.output == 0:
        return True, Decimal(0), model.id
    return False, price.output, model.id
