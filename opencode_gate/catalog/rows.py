"""A provider and a model as rows of data: all the rest of the program knows about either.

The invariant: nothing outside this package asks which provider it is talking to; it asks the
row for the fact it needs.
"""

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

StreamUsage: TypeAlias = Literal["ask", "always", "never"]
ProviderSource: TypeAlias = Literal["builtin", "catalogue", "config", "agent", "local"]


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider is reached and how; serialisable as JSON.

    Attributes:
        id: the id Opencode and the catalogue use (`anthropic`).
        base_url: the address with its version path, variables already filled in
            (`https://api.anthropic.com/v1`); `None` where the catalogue has none.
        npm: the AI SDK package Opencode speaks to it with, `None` where unknown.
        env: the environment variables that usually hold its key, and other settings.
        key_env: those of `env` that hold its key; a key is looked for in these.
        secret_env: the variables to hide from the agent: those of `key_env` that are an LLM key
            and nothing else (a `GITHUB_TOKEN` is not), and those that `headers` refers to.
        keyless: it can be used without any key.
        auth_header: send the key in this header instead of where the client put it.
        headers: extra headers to add towards the provider, `{env:NAME}` not yet filled in: see
            `header_values.sent_headers`.
        stream_usage: whether a streaming OpenAI-chat request is asked for its usage.
        subscription: the remembered answer for a stored sign-in (`direct` or `key`).
        wire: the wire format of a user-added server, `None` where the path tells.
        wire_bases: another base address per wire format (`anthropic`), where one provider serves
            its formats below different addresses.
        missing_variables: `${VARS}` in the catalogue's address that nobody has filled in.
        why_not: why this provider does not work through the gateway, `None` if it does.
    """

    id: str
    name: str
    base_url: str | None
    npm: str | None = None
    env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    secret_env: tuple[str, ...] = ()
    doc_url: str | None = None
    keyless: bool = False
    auth_header: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    stream_usage: StreamUsage = "ask"
    subscription: Literal["direct", "key"] | None = None
    wire: str | None = None
    wire_bases: dict[str, str] = msgspec.field(default_factory=dict)
    source: ProviderSource = "catalogue"
    missing_variables: tuple[str, ...] = ()
    why_not: str | None = None

    @property
    def command_for_variables(self) -> str:
        """What a person types to fill in `missing_variables`."""
        wanted = " ".join(f"--variable {name}=…" for name in self.missing_variables)
        return f"ogate providers edit {self.id} {wanted}"


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """Prices in USD per million tokens; `None` is unknown, 0 is free.

    `per_request` are USD for each request, whatever goes in and comes out; no model has them
    but those that search the web for every answer.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    reasoning: Decimal | None = None
    input_audio: Decimal | None = None
    output_audio: Decimal | None = None
    per_request: Decimal | None = None
    tiers: tuple["PriceTier", ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether input and output cost nothing, and nothing else costs anything."""
        if self.input != 0 or self.output != 0 or self.tiers:
            return False
        return not any(getattr(self, name) for name in self.__struct_fields__ if name != "tiers")


class PriceTier(msgspec.Struct, frozen=True, kw_only=True):
    """Prices that replace the base ones for a whole request with more input than the threshold."""

    above_input_tokens: int
    price: ModelPrice


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One model of one provider. `context_tokens` and `output_tokens` are limits, `None` unknown.

    `raw` is the models.dev entry itself, for what Opencode needs written back.
    """

    provider_id: str
    id: str
    name: str
    family: str | None = None
    release_date: str | None = None
    context_tokens: int | None = None
    output_tokens: int | None = None
    tool_call: bool | None = None
    reasoning: bool | None = None
    npm: str | None = None
    status: str | None = None
    price: ModelPrice | None = None
    raw: dict[str, object] = msgspec.field(default_factory=dict)
