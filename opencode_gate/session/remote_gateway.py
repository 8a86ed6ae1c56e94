"""A gateway elsewhere, as its launchers see it: what it routes, sessions begun and ended.

The invariants: the virtual key is sent to the gateway it belongs to and nowhere else, over plain
HTTP only within this machine or where that was asked for; no redirect is followed.
"""

import os
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from opencode_gate.catalog.model_entries import model_row
from opencode_gate.config.proxies import is_loopback, proxy_rules
from opencode_gate.config.tls import provider_context
from opencode_gate.core.errors import CODES, CredentialError, GatewayError, UsageError
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.entries import GATEWAY_KEYS
from opencode_gate.credentials.resolve import CredentialSource
from opencode_gate.credentials.testing import httpx_proxy
from opencode_gate.governance.standing import BudgetStanding
from opencode_gate.ledger.records import ExchangeRecord, SessionRecord
from opencode_gate.server.protocol import provider_row
from opencode_gate.session.discovery import UsableProvider

if TYPE_CHECKING:
    import httpx

DEFAULT_URL: Final = "http://127.0.0.1:4141"
_TIMEOUT_S: Final = 15.0
_ACCOUNT_TIMEOUT_S: Final = 60.0
_T = TypeVar("_T")


class GatewayAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gateway is: `origin` has no slash at its end, `host` its port if it names one."""

    origin: str
    scheme: str
    host: str

    @property
    def key_owner(self) -> str:
        """What its virtual key is filed under, where provider keys have the provider's id."""
        return f"{GATEWAY_KEYS}{self.host}"


def gateway_address(url: str, *, is_insecure: bool) -> GatewayAddress:
    """The address that was typed.

    Raises:
        UsageError: it is none, or keys and prompts would travel where others can read them.
    """
    parts = urlsplit(url)
    try:
        is_sound = parts.port is None or parts.port > 0
    except ValueError:
        is_sound = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_sound:
        raise UsageError(
            "usage",
            f"{url!r} is no address of a gateway",
            hint="https://HOST:4141, or http://localhost:4141",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(
            "usage",
            "the address of a gateway has no name, password or query in it",
            hint="its virtual key is asked for and kept in the keyring",
        )
    if parts.scheme == "http" and not is_insecure and not is_loopback(parts.hostname):
        raise UsageError(
            "insecure-address",
            f"plain HTTP would show others the virtual key and the prompts on the way to "
            f"{parts.hostname}",
            hint="https://…, or --insecure where the network itself is private",
        )
    host = parts.netloc.lower()
    origin = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    return GatewayAddress(origin=origin, scheme=parts.scheme, host=host)


class _Offered(msgspec.Struct):
    row: dict[str, Any]
    models: dict[str, dict[str, Any]] = {}
    has_key: bool = True


class _Offer(msgspec.Struct):
    providers: list[_Offered]


class _Opened(msgspec.Struct):
    token: str


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Refused(msgspec.Struct):
    error: _Problem


class SessionAccount(msgspec.Struct):
    """A session that ended, its exchanges, and how the budgets above it stand."""

    session: SessionRecord
    exchanges: list[ExchangeRecord]
    budgets: tuple[BudgetStanding, ...] = ()


class RemoteGateway:
    """Speaks with one gateway under one virtual key."""

    def __init__(
        self, address: GatewayAddress, key: Secret, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.address = address
        self._key = key
        self._environ = environ

    def offer(self) -> Mapping[str, UsableProvider]:
        """What the gateway routes, as if it were found on this machine.

        Raises:
            GateError: it cannot be reached, is none, or refuses the key.
        """
        offer = self._call("GET", "offer", _Offer, self._key)
        found = {}
        for offered in offer.providers:
            try:
                row = provider_row(offered.row)
            except TypeError as error:
                raise self._not_one("it speaks of providers in another way") from error
            models = {
                model_id: model_row(row.id, model_id, entry)
                for model_id, entry in offered.models.items()
            }
            found[row.id] = UsableProvider(
                row=row,
                source=CredentialSource(
                    kind="gateway" if offered.has_key else "none", label=self.address.host
                ),
                models=models or None,
                is_new_to_agent=bool(models),
            )
        return MappingProxyType(found)

    def begin(self, session: SessionRecord, *, budget_usd: Decimal | None) -> Secret:
        """Opens a session: what the agent is given in place of any key.

        Raises:
            GateError: as `offer`.
        """
        wish = {name: getattr(session, name) for name in _SAID_OF_A_SESSION}
        if budget_usd is not None:
            wish["budget_usd"] = str(budget_usd)
        return Secret(self._call("POST", "sessions", _Opened, self._key, wish).token)

    def end(self, token: Secret, exit_status: int | None) -> SessionAccount:
        """Ends the session of a token, which is worth nothing from then on.

        Raises:
            GateError: as `offer`.
        """
        return self._call(
            "POST", "session/end", SessionAccount, token, {"exit_status": exit_status}
        )

    def _call(
        self, method: str, path: str, kind: type[_T], token: Secret, body: object = None
    ) -> _T:
        import httpx

        url = f"{self.address.origin}/ogate/v1/{path}"
        try:
            with self._client() as client:
                answer = client.request(
                    method,
                    url,
                    json=body,
                    headers={"authorization": f"Bearer {token.reveal()}"},
                )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise GatewayError(
                "gateway-unreachable",
                f"cannot reach the gateway {self.address.origin}: {error}",
                hint=_hint_for(error, self.address.origin),
            ) from error
        if answer.status_code != 200:
            raise self._refusal(answer)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._not_one("its answer is not understood") from error

    def _client(self) -> "httpx.Client":
        """The way the gateway's own requests go: the same proxies, the same trust."""
        import httpx

        parts = urlsplit(self.address.origin)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        proxy = proxy_rules(self._environ).proxy_for(parts.scheme, parts.hostname or "", port)
        return httpx.Client(
            timeout=httpx.Timeout(_TIMEOUT_S, read=_ACCOUNT_TIMEOUT_S),
            verify=provider_context(self._environ) if parts.scheme == "https" else True,
            proxy=None if proxy is None else httpx_proxy(proxy),
            trust_env=False,
            follow_redirects=False,
        )

    def _refusal(self, answer: "httpx.Response") -> GatewayError | CredentialError:
        try:
            problem = msgspec.json.decode(answer.content, type=_Refused).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._not_one(f"it answered with status {answer.status_code}")
        if problem.code not in CODES:
            return self._not_one(f"it answered with status {answer.status_code}")
        message = f"{self.address.host}: {problem.message.removeprefix('ogate: ')}"
        if problem.code == "unknown-virtual-key":
            forgets = f"ogate keys remove {self.address.key_owner}"
            hint = f"{forgets} forgets the stored key; OGATE_KEY goes before it"
            return CredentialError(problem.code, message, hint=hint)
        if answer.status_code == 401:
            return CredentialError(
                problem.code, message, hint="whoever runs that gateway can change that"
            )
        return GatewayError(problem.code, message, hint="whoever runs that gateway knows more")

    def _not_one(self, why: str) -> GatewayError:
        return GatewayError(
            "gateway-unreachable",
            f"{self.address.origin} is no gateway of ogate, or of another version: {why}",
            hint="its address is that of ogate serve, without any path behind it",
        )


def _hint_for(error: Exception, origin: str) -> str:
    import httpx

    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "SSL_CERT_FILE=FILE names the authority that its certificate is from"
    if isinstance(error, httpx.RemoteProtocolError) and origin.startswith("http://"):
        return f"it may speak TLS: https://{origin.removeprefix('http://')}"
    return "is its address right, and does ogate serve run there?"


_SAID_OF_A_SESSION: Final = (
    "id",
    "user",
    "agent",
    "agent_version",
    "directory",
    "project",
    "repository",
    "branch",
    "commit",
    "time_zone",
)
