"""What a person may choose from, as plain values: providers, models, and the deeds behind them.

The idea: discovery fills these values, the wizard shows them, and neither knows the other. The
invariant: nothing here does I/O; what costs time or writes something is one of `Deeds`, and the
wizard calls it only when the person's step needs it.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Protocol

import msgspec

from opencode_gate.catalog.familiar import familiarity_rank
from opencode_gate.catalog.rows import ModelRow
from opencode_gate.core.secrets import Secret


class ProviderGroup(IntEnum):
    """How near a provider is to being used; the list is in this order."""

    READY = 0
    """A key for it was found."""
    LOCAL = 1
    """A server on this machine that answers."""
    FREE = 2
    """It has models that need no account."""
    PRACTICE = 3
    """The scripted model."""
    OTHER = 4
    """It needs a key first."""
    UNSUPPORTED = 5
    """It cannot pass through the gateway; `why_not` says why."""


class ProviderOption(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the provider list.

    Attributes:
        where: what makes it usable, in a few words: `OS keyring`, `ANTHROPIC_API_KEY`,
            `Opencode's auth.json`, `local server`, `free, no account`,
            `scripted practice model, no key`; `None` where a key is still needed.
        key_page: where a person gets a key.
        key_variable: the environment variable that usually holds it, said as an alternative.
        can_import: its key lies where `Deeds.import_key` can copy it into ogate's own store.
        missing_variables: settings its address needs that nobody has filled in yet
            (`CLOUDFLARE_ACCOUNT_ID`); asked in the key step.
        why_not: why it cannot be used through the gateway, shown instead of `where`.
    """

    id: str
    name: str
    group: ProviderGroup
    where: str | None = None
    needs_key: bool = False
    key_page: str | None = None
    key_variable: str | None = None
    can_import: bool = False
    missing_variables: tuple[str, ...] = ()
    why_not: str | None = None


class ModelOption(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the model list; prices in USD per million tokens, `None` unknown, 0 free."""

    id: str
    name: str
    family: str | None = None
    release_date: str | None = None
    context_tokens: int | None = None
    input_usd_per_million: Decimal | None = None
    output_usd_per_million: Decimal | None = None
    tool_call: bool | None = None
    is_last_used: bool = False


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """All the wizard needs to know before its first screen.

    Attributes:
        folder: the project folder, shown on the last screen.
        agent_version: Opencode's version, `None` when it is not known.
        providers: in any order; the wizard sorts them.
        key_store: where a new key will go, in words (`OS keyring`, `encrypted file`).
        keys_in_use: environment variables whose keys this session uses (and hides from Opencode).
        budget: how the budgets above the session stand, in words; empty where there are none.
    """

    folder: Path
    agent_version: str | None
    providers: tuple[ProviderOption, ...]
    key_store: str = "OS keyring"
    keys_in_use: tuple[str, ...] = ()
    budget: str = ""


class Deeds(Protocol):
    """What the wizard lets happen. Every method may raise a `GateError`, which is shown."""

    def models_of(self, provider_id: str) -> Sequence[ModelOption]:
        """The provider's models, best first (see `model_options`)."""
        ...

    def check_key(self, provider_id: str, key: Secret) -> str | None:
        """Asks the provider about a key: `None` when it works, else what is wrong, in words."""
        ...

    def store_key(self, provider_id: str, key: Secret) -> None:
        """Keeps a key for later sessions; called once, when the person has started the session."""
        ...

    def store_variables(self, provider_id: str, variables: Mapping[str, str]) -> None:
        """Keeps the settings a provider's address needs; called like `store_key`, before it."""
        ...

    def import_key(self, provider_id: str) -> str:
        """Copies a found key into ogate's own store; says where it lies now (`OS keyring`)."""
        ...


def order_providers(providers: Iterable[ProviderOption]) -> list[ProviderOption]:
    """Usable ones first, then the familiar ones, then by name."""
    return sorted(
        providers,
        key=lambda option: (option.group, familiarity_rank(option.id), option.name.lower()),
    )


def model_options(rows: Iterable[ModelRow], *, last_used: str | None = None) -> list[ModelOption]:
    """Models as the list shows them: last used on top, then newest.

    Those Opencode cannot work with (no tools) are at the end. Those that answer with something
    else than text (speech, pictures) are left out, and so are deprecated ones, which Opencode
    does not know.
    """
    options = [
        ModelOption(
            id=row.id,
            name=row.name,
            family=row.family,
            release_date=row.release_date,
            context_tokens=row.context_tokens,
            input_usd_per_million=None if row.price is None else row.price.input,
            output_usd_per_million=None if row.price is None else row.price.output,
            tool_call=row.tool_call,
            is_last_used=row.id == last_used,
        )
        for row in rows
        if row.status != "deprecated" and _writes_text(row)
    ]
    options.sort(key=lambda option: option.name.lower())
    options.sort(key=lambda option: option.release_date or "", reverse=True)
    options.sort(
        key=lambda option: (
            not option.is_last_used,
            option.tool_call is False,
        )
    )
    return options


def _writes_text(row: ModelRow) -> bool:
    modalities = row.raw.get("modalities")
    output = modalities.get("output") if isinstance(modalities, dict) else None
    return not isinstance(output, list) or "text" in output


_SMALL_FAMILIES = ("gemini-flash", "gpt-nano", "claude-haiku")


def propose_small_model(models: Iterable[ModelOption]) -> str | None:
    """The model Opencode itself would use for titles: its own rule, so the proposal is no surprise.

    The newest of the first family present, in the order gemini-flash, gpt-nano, claude-haiku;
    `None` where the provider has none of them (Opencode then uses the main model).
    """
    candidates = tuple(models)
    for family in _SMALL_FAMILIES:
        members = [model for model in candidates if model.family == family]
        if members:
            return max(members, key=lambda model: model.release_date or "").id
    return None
