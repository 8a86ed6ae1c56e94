"""What a provider's answer, or its silence, says about a key.

The same refusal has many forms: OpenAI says 429 for an empty account, Anthropic 400, xAI 403;
Gemini says 400 for a wrong key. So the status decides first and the words second. The
invariant: what is quoted from an answer has the key taken out, also a part of it.
"""

import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from opencode_gate.core.secrets import Secret

KeyTestResult: TypeAlias = Literal[
    "ok", "wrong-key", "no-credit", "no-network", "wrong-base-url", "unclear"
]
Online: TypeAlias = Callable[[], bool]

NO_SUCH_PATH = (404, 405, 410, 501)

_QUOTE_CHARACTERS = 240
_KEY_PART_CHARACTERS = 6

_NO_CREDIT = re.compile(
    r"insufficient.{0,12}(quota|balance|credit|fund)|credit balance|(out of|no|any) credits?\b"
    r"|payment.required|billing.{0,10}(hard.limit|not.active)|arrears",
    re.IGNORECASE | re.DOTALL,
)
_WRONG_KEY = re.compile(
    r"(invalid|incorrect|not valid|expired|malformed|wrong).{0,30}(api|auth|access).?(key|token)"
    r"|api.?key.{0,30}(invalid|incorrect|not valid|not found|expired|wrong)"
    r"|unauthori[sz]ed|authentication",
    re.IGNORECASE | re.DOTALL,
)
_RESTRICTED = re.compile(r"scope|permission|not (allowed|permitted)|region|country", re.IGNORECASE)


class KeyTest(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a test: `result` for programs, `detail` for people, `hint` what to do."""

    result: KeyTestResult
    detail: str
    hint: str | None = None


def of_answer(
    status: int, text: str, secrets: Sequence[Secret], *, location: str | None = None
) -> KeyTest:
    """The verdict on an HTTP answer; `secrets` are what was sent and must not be quoted."""
    said = quotable(text, secrets)
    if status < 300:
        return _of_success(text)
    if status < 400:
        host = urlsplit(location or "").hostname
        where = f" to {host}" if host else ""
        return KeyTest(result="wrong-base-url", detail=f"the address redirects{where} ({status})")
    if status == 407:
        return KeyTest(result="no-network", detail="the proxy wants a sign-in (407)")
    if status == 402 or (status in (400, 403, 429) and _NO_CREDIT.search(text)):
        return KeyTest(
            result="no-credit",
            detail=f"the account has no credit ({status}): {said}",
            hint="add credit on the provider's billing page",
        )
    if status in NO_SUCH_PATH:
        return KeyTest(result="wrong-base-url", detail=f"nothing there ({status}): {said}")
    return _of_refusal(status, text, said)


def _of_success(text: str) -> KeyTest:
    try:
        json.loads(text)
    except ValueError:
        return KeyTest(result="wrong-base-url", detail="what answers there is a page, not an API")
    return KeyTest(result="ok", detail="the provider answered")


def _of_refusal(status: int, text: str, said: str) -> KeyTest:
    if status == 403 and (_RESTRICTED.search(text) or text.lstrip().startswith("<")):
        return KeyTest(
            result="unclear",
            detail=f"refused (403), perhaps not because of the key: {said}",
            hint="a restricted key may still generate: test with --prompt",
        )
    if status in (401, 403) or (status in (400, 422) and _WRONG_KEY.search(text)):
        return KeyTest(
            result="wrong-key",
            detail=f"the provider refused the key ({status}): {said}",
            hint="copy it again from the provider's page; it may also have been revoked",
        )
    if status == 429:
        return KeyTest(result="unclear", detail=f"too many requests just now (429): {said}")
    if status >= 500:
        return KeyTest(result="unclear", detail=f"the provider has trouble ({status}): {said}")
    return KeyTest(result="unclear", detail=f"the provider refused ({status}): {said}")


def of_failure(error: Exception, base_url: str, *, is_online: Online, is_proxied: bool) -> KeyTest:
    """The verdict on a call that got no answer at all."""
    import httpx

    host = urlsplit(base_url).netloc.rpartition("@")[2] or base_url
    causes = list(_causes(error))
    if is_proxied and isinstance(error, httpx.ProxyError | httpx.ConnectError):
        return KeyTest(
            result="no-network",
            detail="the proxy cannot be reached or did not let the call through",
            hint="look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
        )
    if isinstance(error, httpx.TimeoutException):
        return KeyTest(result="no-network", detail=f"{host} did not answer in time")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        if is_online():
            return KeyTest(result="wrong-base-url", detail=f"there is no host named {host}")
        return KeyTest(result="no-network", detail="no name can be looked up")
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return KeyTest(
            result="unclear",
            detail=f"the certificate of {host} is not trusted here",
            hint="behind a company proxy, name its certificate in NODE_EXTRA_CA_CERTS",
        )
    if _is_unreachable(causes):
        return KeyTest(result="no-network", detail=f"{host} cannot be reached")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return KeyTest(
            result="wrong-base-url", detail=f"nothing listens at {host}, or a firewall refuses"
        )
    return KeyTest(result="wrong-base-url", detail=f"{host} does not speak HTTP as it should")


def is_online() -> bool:
    """Whether another well-known name can be looked up; nothing is sent to it."""
    try:
        socket.getaddrinfo("models.dev", 443, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return True


def quotable(text: str, secrets: Sequence[Secret]) -> str:
    """One short line of an answer, the message where it has one, without the secrets.

    Providers repeat the key in their refusals, some of them masked in the middle: a word that
    shares a run of characters with the key is taken out whole.
    """
    line = " ".join(_message(text).split())
    if len(line) > _QUOTE_CHARACTERS:
        line = line[:_QUOTE_CHARACTERS] + "…"
    parts = {
        key[start : start + _KEY_PART_CHARACTERS]
        for key in (secret.reveal() for secret in secrets)
        for start in range(len(key) - _KEY_PART_CHARACTERS + 1)
    }
    words = ("****" if any(part in word for part in parts) else word for word in line.split(" "))
    return " ".join(words) or "no explanation"


def _message(text: str) -> str:
    try:
        document = json.loads(text)
    except ValueError:
        return re.sub(r"<[^>]*>", " ", text)
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return ""
    error = document.get("error", document)
    if isinstance(error, dict):
        error = error.get("message", error.get("detail", ""))
    return error if isinstance(error, str) else json.dumps(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_unreachable(causes: list[BaseException]) -> bool:
    import errno

    unreachable = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
    return any(isinstance(cause, OSError) and cause.errno in unreachable for cause in causes)
