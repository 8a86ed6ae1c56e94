"""Whether a key works, found out with the cheapest call that proves it.

Listing models costs nothing and needs the key almost everywhere. Where it does not (some
providers list to anyone) the same call without the key shows it, and the verdict is not "ok"
but "unclear". The invariants: nothing but `--prompt` spends money, the key goes to the
provider's own address only (no redirect is followed), and never into a verdict.
"""

import json
import os
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec

from opencode_gate.config.proxies import Proxy, proxy_rules
from opencode_gate.config.tls import provider_context
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials import verdicts
from opencode_gate.credentials.resolve import ProviderFacts
from opencode_gate.credentials.shape import problem_with
from opencode_gate.credentials.verdicts import KeyTest, Online

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

Wire: TypeAlias = Literal["openai-chat", "openai-responses", "anthropic", "gemini"]

TIMEOUT_S = 10.0
PROMPT_TIMEOUT_S = 60.0
PROMPT = "Reply with the word OK."
PROMPT_OUTPUT_TOKENS = 16
"""The least the Responses API takes (https://platform.openai.com/docs/api-reference/responses)."""

_ANTHROPIC_VERSION = "2023-06-01"
"""https://docs.anthropic.com/en/api/versioning"""

_BODY_BYTES_MAX = 8 * 1024 * 1024

_WIRE_BY_PACKAGE: "dict[str | None, Wire]" = {
    "@ai-sdk/anthropic": "anthropic",
    "@ai-sdk/google": "gemini",
    "@ai-sdk/openai": "openai-responses",
}
_KEY_HEADERS_BY_WIRE: "dict[Wire, str]" = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}
_KEY_HEADERS: dict[str | None, str] = {"@ai-sdk/azure": "api-key"}
"""Where the key goes when that is not `authorization`: by wire format, by SDK package."""

_WIRES: "dict[str | None, Wire]" = {
    "openai-chat": "openai-chat",
    "openai-responses": "openai-responses",
    "anthropic": "anthropic",
    "gemini": "gemini",
}


class ReachableProvider(ProviderFacts, Protocol):
    """What is needed of a provider to call it; the catalogue's row has it all."""

    @property
    def base_url(self) -> str | None:
        """The address with its version path."""
        ...

    @property
    def npm(self) -> str | None:
        """The AI SDK package Opencode speaks to it with."""
        ...

    @property
    def wire(self) -> str | None:
        """The wire format of a user-added server."""
        ...

    @property
    def wire_bases(self) -> "Mapping[str, str]":
        """Another address per wire format, where its formats are served below different ones."""
        ...

    @property
    def auth_header(self) -> str | None:
        """The header the key goes into, where it is not the usual one."""
        ...

    @property
    def headers(self) -> "Mapping[str, str]":
        """Extra headers, every variable in them filled in."""
        ...


def wire_of(row: ReachableProvider) -> Wire:
    """The wire format a provider is called in when nobody chose one."""
    return _WIRES.get(row.wire) or _WIRE_BY_PACKAGE.get(row.npm, "openai-chat")


def test_key(
    row: ReachableProvider,
    secret: Secret,
    *,
    prompt_model: str | None = None,
    is_online: Online = verdicts.is_online,
) -> KeyTest:
    """Calls the provider and says what came of it. Blocking, ten seconds at most a call.

    Args:
        secret: empty for a provider that needs no key.
        prompt_model: send this model a real prompt of a few tokens instead of listing models.
        is_online: says whether this machine can look up other names, asked when one fails.
    """
    base_url = row.wire_bases.get(wire_of(row), row.base_url)
    if base_url is None:
        return KeyTest(result="wrong-base-url", detail=f"no address is known for {row.id}")
    problem = problem_with(secret) if secret else None
    if problem is not None:
        return KeyTest(result="wrong-key", detail=problem)
    caller = _Caller(row, base_url)
    if caller.proxy is not None and caller.proxy.unusable is not None:
        return KeyTest(result="no-network", detail=caller.proxy.unusable, hint="ogate doctor")
    try:
        calls = caller.client(PROMPT_TIMEOUT_S if prompt_model else TIMEOUT_S)
    except OSError as error:
        return KeyTest(result="unclear", detail=str(error), hint="correct or unset SSL_CERT_FILE")
    with calls as client:
        try:
            if prompt_model is not None:
                return _by_prompt(caller, client, secret, prompt_model)
            return _by_listing(caller, client, secret)
        except _http_errors() as error:
            return verdicts.of_failure(
                error, base_url, is_online=is_online, is_proxied=caller.proxy is not None
            )


class _Answer(msgspec.Struct, frozen=True):
    """What came back: the status, the text (bounded), where a redirect points."""

    status: int
    text: str
    location: str | None


class _Caller:
    """The calls a key can be proved with, in one provider's wire format."""

    def __init__(self, row: ReachableProvider, base_url: str) -> None:
        self._row = row
        self._base_url = base_url.rstrip("/")
        self.wire = wire_of(row)
        parts = urlsplit(self._base_url)
        default_port = 443 if parts.scheme == "https" else 80
        self.proxy = proxy_rules(os.environ).proxy_for(
            parts.scheme, parts.hostname or "", parts.port or default_port
        )

    def secrets(self, secret: Secret) -> list[Secret]:
        """What must not be quoted from an answer; the user's own headers may hold secrets too."""
        return [secret, *(Secret(value) for value in self._row.headers.values())]

    def client(self, timeout_s: float) -> "httpx.Client":
        """A client that goes the gateway's way: the same proxies, the same trust."""
        import httpx

        return httpx.Client(
            timeout=timeout_s,
            verify=provider_context() if self._base_url.startswith("https:") else True,
            proxy=None if self.proxy is None else httpx_proxy(self.proxy),
            trust_env=False,
            follow_redirects=False,
        )

    def list_models(self, client: "httpx.Client", secret: Secret) -> _Answer:
        """Asks for the list of models."""
        return self._send(client, "GET", "/models", secret, None)

    def prompt(self, client: "httpx.Client", secret: Secret, model: str) -> _Answer:
        """Sends a real prompt of a few tokens."""
        path, body = _prompt_request(self.wire, model)
        return self._send(client, "POST", path, secret, body)

    def empty_prompt(self, client: "httpx.Client", secret: Secret) -> _Answer:
        """Sends a request that no provider can answer with a generation: an empty object."""
        path, _ = _prompt_request(self.wire, "none")
        return self._send(client, "POST", path, secret, {})

    def _send(
        self,
        client: "httpx.Client",
        method: str,
        path: str,
        secret: Secret,
        body: dict[str, Any] | None,
    ) -> _Answer:
        headers = {**_headers(self.wire, self._row, secret), **self._row.headers}
        address = self._base_url + path
        with client.stream(method, address, headers=headers, json=body) as response:
            collected = bytearray()
            for chunk in response.iter_bytes():
                collected += chunk
                if len(collected) > _BODY_BYTES_MAX:
                    break
            return _Answer(
                response.status_code,
                collected.decode("utf-8", "replace"),
                response.headers.get("location"),
            )


def _by_listing(caller: _Caller, client: "httpx.Client", secret: Secret) -> KeyTest:
    answer = caller.list_models(client, secret)
    if answer.status in verdicts.NO_SUCH_PATH:
        return _without_listing(caller, client, secret)
    test = verdicts.of_answer(
        answer.status, answer.text, caller.secrets(secret), location=answer.location
    )
    if test.result != "ok":
        return test
    count = _count_models(answer.text)
    if count is None:
        return KeyTest(result="wrong-base-url", detail="what answers there is not a list of models")
    if secret and caller.list_models(client, Secret("")).status < 300:
        return KeyTest(
            result="unclear",
            detail=f"{count} models listed, but this provider lists them to anyone",
            hint="test with a real prompt of a few tokens: --prompt",
        )
    return KeyTest(result="ok", detail=f"{count} models listed")


def _without_listing(caller: _Caller, client: "httpx.Client", secret: Secret) -> KeyTest:
    """For a provider with no list of models: an empty request, with the key and without."""
    answer = caller.empty_prompt(client, secret)
    if answer.status in verdicts.NO_SUCH_PATH:
        return KeyTest(
            result="wrong-base-url",
            detail="neither a list of models nor the wire format's own path is there",
        )
    test = verdicts.of_answer(
        answer.status, answer.text, caller.secrets(secret), location=answer.location
    )
    if answer.status not in (400, 422) or test.result == "wrong-key":
        return test
    if secret and caller.empty_prompt(client, Secret("")).status in (401, 403):
        return KeyTest(result="ok", detail="the key was accepted")
    return KeyTest(
        result="unclear",
        detail="this provider does not list its models",
        hint="test with a real prompt of a few tokens: --prompt",
    )


def _by_prompt(caller: _Caller, client: "httpx.Client", secret: Secret, model: str) -> KeyTest:
    answer = caller.prompt(client, secret, model)
    test = verdicts.of_answer(
        answer.status, answer.text, caller.secrets(secret), location=answer.location
    )
    if test.result != "ok":
        return test
    return KeyTest(result="ok", detail=f"{model} answered a prompt")


def _headers(wire: Wire, row: ReachableProvider, secret: Secret) -> dict[str, str]:
    headers = {"accept": "application/json"}
    if wire == "anthropic":
        headers["anthropic-version"] = _ANTHROPIC_VERSION
    if not secret:
        return headers
    usual = _KEY_HEADERS_BY_WIRE.get(wire) or _KEY_HEADERS.get(row.npm, "authorization")
    name = row.auth_header or usual
    bearer = name.lower().endswith("authorization")
    headers[name] = f"Bearer {secret.reveal()}" if bearer else secret.reveal()
    return headers


def _prompt_request(wire: Wire, model: str) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": PROMPT}]
    match wire:
        case "openai-chat":
            body = {"model": model, "messages": messages, "max_tokens": PROMPT_OUTPUT_TOKENS}
            return "/chat/completions", body
        case "openai-responses":
            return "/responses", {
                "model": model,
                "input": PROMPT,
                "max_output_tokens": PROMPT_OUTPUT_TOKENS,
                "store": False,
            }
        case "anthropic":
            body = {"model": model, "messages": messages, "max_tokens": PROMPT_OUTPUT_TOKENS}
            return "/messages", body
        case "gemini":
            return f"/models/{model}:generateContent", {
                "contents": [{"role": "user", "parts": [{"text": PROMPT}]}],
                "generationConfig": {"maxOutputTokens": PROMPT_OUTPUT_TOKENS},
            }


def _count_models(text: str) -> int | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    models = document
    if isinstance(document, dict):
        models = document.get("data", document.get("models"))
    return len(models) if isinstance(models, list) else None


def _http_errors() -> tuple[type[Exception], ...]:
    import httpx

    return (httpx.HTTPError, httpx.InvalidURL)


def httpx_proxy(proxy: Proxy) -> "httpx.Proxy":
    """A proxy as httpx wants it."""
    import httpx

    host = f"[{proxy.host}]" if ":" in proxy.host else proxy.host
    authorization = proxy.authorization
    headers = {} if authorization is None else {"Proxy-Authorization": authorization.reveal()}
    return httpx.Proxy(f"http://{host}:{proxy.port}", headers=headers)
