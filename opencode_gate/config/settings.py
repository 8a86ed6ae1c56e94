"""What the user has decided: `config.toml`, over it `OGATE_*` variables.

The idea: one tree of frozen values, read once at the start and handed down; nobody reads
the file or the environment for a setting anywhere else. The invariant: what was not understood
is refused with its file, line and key; a typing error never becomes a silent default.

The reference page is made from the `Attributes` of these docstrings.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from opencode_gate.config.paths import Paths
from opencode_gate.config.price_settings import PriceSettings, check_prices, price_key_problem
from opencode_gate.config.toml_lines import line_of
from opencode_gate.config.toml_shape import (
    Check,
    ShapeProblem,
    dotted,
    field_types,
    nearest,
    read_table,
    read_text,
)
from opencode_gate.core.errors import ConfigError

SummaryForm: TypeAlias = Literal["table", "json", "off"]
WireName: TypeAlias = Literal["openai-chat", "openai-responses", "anthropic", "gemini"]

# Not compiled: most starts use none of these.
_PROVIDER_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_EMPTY: Mapping[str, Any] = MappingProxyType({})


def base_url_problem(url: str) -> str | None:
    """What is wrong with a provider's base address, or `None`."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        return f"is not an address: {url!r}"
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        return f"is an address such as https://host/v1, not {url!r}"
    if parts.username is not None or parts.password is not None:
        return "carries a user name or password; a key belongs into `ogate keys add`"
    if parts.query or parts.fragment:
        return "has a ? or # part, which a base address cannot have"
    return None


def header_name_problem(name: str) -> str | None:
    """What is wrong with the name of an HTTP header (RFC 9110 §5.1), or `None`."""
    return None if re.fullmatch(_HEADER_NAME, name) else f"is no name for a header: {name!r}"


def provider_id_problem(provider_id: str) -> str | None:
    """What is wrong with a provider's id, which becomes a part of addresses, or `None`."""
    if re.fullmatch(_PROVIDER_ID, provider_id):
        return None
    return f"is no id: small letters, digits, dot, dash and underscore only, not {provider_id!r}"


def header_value_problem(value: str) -> str | None:
    """What is wrong with the value of an HTTP header, or `None`."""
    return "has a line break" if any(character in value for character in "\r\n\0") else None


def _headers_problem(headers: Mapping[str, str]) -> str | None:
    problems = (header_name_problem(n) or header_value_problem(v) for n, v in headers.items())
    return next((problem for problem in problems if problem is not None), None)


def variable_name_problem(name: str) -> str | None:
    """What is wrong with the name of an environment variable, or `None`."""
    return None if re.fullmatch(_VARIABLE_NAME, name) else f"is no name for a variable: {name!r}"


def _budget_problem(budget_usd: Decimal) -> str | None:
    return None if budget_usd > 0 else "is an amount in USD above 0"


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a session is run.

    Attributes:
        keep_env: leave the provider keys of the environment visible to Opencode.
        agent_path: the Opencode program to start, instead of the one found on `PATH`.
        summary: what is printed after a session: `table`, `json` or `off`.
        budget: what each session may cost at most, in USD, unless `--budget` says otherwise.
        gateway: the address of a gateway that others run, unless `--gateway` says otherwise.
    """

    keep_env: bool = False
    agent_path: str | None = None
    summary: SummaryForm = "table"
    budget: Decimal | None = None
    gateway: str | None = None

    CHECKS: ClassVar[Mapping[str, Check]] = {"budget": _budget_problem}


class CatalogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the list of providers and models comes from.

    Attributes:
        refresh: fetch the newest catalogue from models.dev in the background, at most daily.
    """

    refresh: bool = True


class PricingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What happens where a price is missing.

    Attributes:
        on_unknown_price: `warn` says so in the summary; `block` refuses the request.
    """

    on_unknown_price: Literal["warn", "block"] = "warn"


def _days_problem(days: int) -> str | None:
    return None if days >= 0 else f"is a number of days from 0 up, not {days}"


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long the bulky part of what is recorded is kept. Rows are kept for ever.

    Attributes:
        keep_parts_days: how many days the hashes and lengths are kept that tell where two
            requests differ (`ogate sessions show --cache`); older ones go when a session starts.
    """

    keep_parts_days: int = 30

    CHECKS: ClassVar[Mapping[str, Check]] = {"keep_parts_days": _days_problem}


def _count_problem(count: int) -> str | None:
    return (
        None if count == 0 or count >= 2 else f"is a number from 2 up, or 0 for never, not {count}"
    )


class RunawaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """When an agent that goes round in a circle is stopped. With 0 a check never is made.

    Attributes:
        mode: `enforce` warns when half of one of these is reached, and stops the conversation
            when all of it is; `warn` only warns; `off` does not look.
        same_tool_calls: how often a conversation may make the same tool call in a row, with the
            same arguments and the same result; three times as often where the results differ.
            Calls that themselves take five seconds or more do not count.
        same_questions: how often the same question may come within half a minute, once a
            conversation has asked more than that often; and twice as often in a row at any pace,
            though it was answered. Opencode itself tries six times.
        failed_attempts: how many tries of a conversation in a row may fail within five minutes.
        spend_factor: how many times as much as usual a session may spend. Usual is what 99 of
            100 of your sessions' five-minute spans with any spending in the last 30 days came to.
        spend_usd_per_minute: what a session may spend in any case, on the average of five
            minutes.
    """

    mode: Literal["enforce", "warn", "off"] = "enforce"
    same_tool_calls: int = 10
    same_questions: int = 6
    failed_attempts: int = 40
    spend_factor: int = 20

    CHECKS: ClassVar[Mapping[str, Check]] = dict.fromkeys(
        ("same_tool_calls", "same_questions", "failed_attempts", "spend_factor"), _count_problem
    )
    spend_usd_per_minute: Decimal = Decimal(10)


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a server you added, as far as you care to describe it.

    Attributes:
        name: how it is shown; its id otherwise.
        context: how many tokens fit into it, input and output together.
        output: how many tokens it may answer with; Opencode is told a quarter of `context`
            otherwise.
        tool_call: whether it can call tools.
        reasoning: whether it thinks before it answers.
    """

    name: str | None = None
    context: int | None = None
    output: int | None = None
    tool_call: bool | None = None
    reasoning: bool | None = None


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A provider of your own, or what is different about a built-in one.

    Attributes:
        base_url: the address requests go to, with its version path (`https://host/v1`).
        wire: the format a server of your own speaks.
        name: how it is shown.
        keyless: it needs no key.
        auth_header: send the key in this header instead of the usual one.
        headers: more headers to send; `{env:NAME}` in a value is the variable of that name.
        stream_usage: whether a streamed OpenAI-chat request asks for its token counts: `ask`,
            `always` (sent unasked) or `never` (asking is refused).
        subscription: what to do with a sign-in stored in Opencode: `direct` leaves it past the
            gateway, `key` uses your key through the gateway instead.
        variables: values for the `${NAMES}` in the catalogue's address.
        models: the models of a server of your own, by id.
    """

    base_url: str | None = None
    wire: WireName | None = None
    name: str | None = None
    keyless: bool | None = None
    auth_header: str | None = None
    headers: Mapping[str, str] = _EMPTY
    stream_usage: Literal["ask", "always", "never"] | None = None
    subscription: Literal["direct", "key"] | None = None
    variables: Mapping[str, str] = _EMPTY
    models: Mapping[str, ModelSettings] = _EMPTY

    CHECKS: ClassVar[Mapping[str, Check]] = {
        "base_url": base_url_problem,
        "auth_header": header_name_problem,
        "headers": _headers_problem,
    }
    KEY_CHECKS: ClassVar[Mapping[str, Check]] = {"variables": variable_name_problem}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of `config.toml`.

    Attributes:
        run: how a session is run.
        catalog: where the list of providers and models comes from.
        pricing: what happens where a price is missing.
        ledger: how long the bulky part of what is recorded is kept.
        runaway: when an agent that goes round in a circle is stopped.
        providers: your own providers, and changes to built-in ones, by id.
        prices: your own prices by `provider/model`; `provider/*` is every model of it. Several
            under one name hold on different days.
    """

    run: RunSettings = RunSettings()
    catalog: CatalogSettings = CatalogSettings()
    pricing: PricingSettings = PricingSettings()
    ledger: LedgerSettings = LedgerSettings()
    runaway: RunawaySettings = RunawaySettings()
    providers: Mapping[str, ProviderSettings] = _EMPTY
    prices: Mapping[str, tuple[PriceSettings, ...]] = _EMPTY

    CHECKS: ClassVar[Mapping[str, Check]] = {"prices": check_prices}
    KEY_CHECKS: ClassVar[Mapping[str, Check]] = {
        "providers": provider_id_problem,
        "prices": price_key_problem,
    }


ENVIRONMENT_SECTIONS = ("run", "catalog", "pricing", "ledger", "runaway")
"""The sections a variable can set, as `OGATE_<SECTION>_<KEY>`."""


def load_settings(paths: Paths, environ: Mapping[str, str]) -> Settings:
    """The settings in force: the file, over it `OGATE_<SECTION>_<KEY>`.

    Args:
        paths: where `config.toml` is; without one, everything has its default.
        environ: the environment to look for `OGATE_RUN_SUMMARY` and the like in.

    Raises:
        ConfigError: `bad-config`, naming file or variable, line, key and the nearest key.
    """
    settings = _read_file(paths.config_file)
    for section in ENVIRONMENT_SECTIONS:
        prefix = f"OGATE_{section.upper()}_"
        for name in sorted(name for name in environ if name.startswith(prefix)):
            key = name[len(prefix) :].lower()
            settings = _with_text(settings, section, key, environ[name], where=name)
    return settings


def parse_settings(text: str, *, source: str) -> Settings:
    """Settings from the text of a file; `source` names it in errors.

    Raises:
        ConfigError: `bad-config`.
    """
    # Most people have no such file.
    import tomllib

    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            "bad-config",
            f"{source} is not TOML: {error}",
            hint="ogate config edit",
        ) from error
    try:
        return read_table(Settings, tables)
    except ShapeProblem as problem:
        line = line_of(text, problem.path)
        place = f"{source}, line {line}" if line is not None else source
        raise ConfigError(
            "bad-config",
            f"{place}: {dotted(problem.path)} {problem.text}",
            hint=problem.hint if problem.hint is not None else "ogate config edit",
        ) from problem


def _read_file(file: Path) -> Settings:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Settings()
    except UnicodeDecodeError as error:
        raise ConfigError(
            "bad-config", f"{file} is not UTF-8 text (byte {error.start})", hint="ogate config edit"
        ) from error
    except OSError as error:
        raise ConfigError("bad-config", f"cannot read {file}: {error.strerror}") from error
    return parse_settings(text, source=str(file))


def _with_text(settings: Settings, section: str, key: str, text: str, *, where: str) -> Settings:
    path = (section, key)
    node = getattr(settings, section)
    known = field_types(type(node))  # type: ignore[arg-type]  # mypy: a class is hashable
    if key not in known:
        close = nearest(key, known)
        raise ConfigError(
            "bad-config",
            f"{where}: {dotted(path)} is not a setting",
            hint=f"did you mean {section}.{close[0]}?" if close else None,
        )
    try:
        value = read_text(type(node), key, text, path)
    except ShapeProblem as problem:
        raise ConfigError(
            "bad-config", f"{where}: {dotted(problem.path)} {problem.text}", hint=problem.hint
        ) from problem
    changed: Settings = replace(settings, **{section: replace(node, **{key: value})})
    return changed
