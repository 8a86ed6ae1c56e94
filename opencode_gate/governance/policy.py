"""The rules people make, as values: who has which budgets, limits, models and keys.

The idea: one shape serves three places. It is the row in the ledger (JSON), the table in a
policy file (TOML) and the value the checks work on, so that a rule cannot mean two things. The
invariants: a rule that is not there allows; an empty allow-list is refused as ambiguous; nothing
here reads a clock, a file or a database.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, cast

import msgspec

from opencode_gate.core.errors import PolicyDenied
from opencode_gate.core.money import nano_usd

OwnerKind: TypeAlias = Literal["session", "user", "vkey", "team", "customer"]
Window: TypeAlias = Literal["session", "hour", "day", "week", "month", "quarter", "year", "total"]
Unit: TypeAlias = Literal["usd", "tokens"]
Mode: TypeAlias = Literal["enforce", "shadow"]
Measure: TypeAlias = Literal["requests", "tokens", "concurrent"]

WARN_AT_PERCENT = (50, 80, 95)
DOWNGRADE = "downgrade:"
_MOST = {"usd": Decimal(2**62) / 10**9, "tokens": Decimal(2**62)}
"""What a database still counts exactly, nano-dollars and tokens, with room for a request."""
_LATEST_US = 2**53
"""In the year 2255."""

_nano_usd = lru_cache(maxsize=1024)(nano_usd)
"""Every request asks again for the same few amounts."""


class Owner(NamedTuple):
    """Whose rule it is; written `team core`."""

    kind: OwnerKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Budget(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How much may be spent in a window: `usd` or `tokens`, one of the two.

    Attributes:
        window: `session` and `total` never begin anew; the others follow the calendar of the
            owner's time zone, or with `rolling` begin every so often from `since_us` on.
        since_us: UTC microseconds at which a rolling budget was made.
        at_end: `block`, `warn`, or `downgrade:<model>`.
        warn_at_percent: shares of it at which people are warned.
        mode: `shadow` only records what it would have refused.
    """

    window: Window
    usd: Decimal | None = None
    tokens: int | None = None
    rolling: bool = False
    since_us: int | None = None
    at_end: str = "block"
    warn_at_percent: tuple[int, ...] = WARN_AT_PERCENT
    mode: Mode = "enforce"

    def __post_init__(self) -> None:
        if (self.usd is None) == (self.tokens is None):
            raise ValueError("a budget has either usd or tokens")
        amount = self.tokens if self.usd is None else self.usd
        if amount is None or not Decimal(amount).is_finite() or amount < 0:
            raise ValueError("the amount of a budget is a number from 0 on")
        if amount > _MOST[self.unit]:
            raise ValueError("the amount of a budget is more than can be counted")
        if self.at_end not in ("block", "warn") and not self.at_end.startswith(DOWNGRADE):
            raise ValueError("at_end is block, warn or downgrade:<model>")
        if self.rolling and (self.since_us is None or self.window in ("session", "total")):
            raise ValueError("a rolling budget has since_us, and a window that begins anew")
        if self.since_us is not None and not 0 <= self.since_us <= _LATEST_US:
            raise ValueError("since_us is in microseconds since 1970")

    @property
    def unit(self) -> Unit:
        """What it is counted in."""
        return "tokens" if self.usd is None else "usd"

    @property
    def limit(self) -> int:
        """The amount in nano-dollars or tokens."""
        if self.usd is not None:
            return _nano_usd(self.usd)
        assert self.tokens is not None
        return self.tokens

    @property
    def is_hard(self) -> bool:
        """True where spending more is refused."""
        return self.mode == "enforce" and self.at_end != "warn"

    def id_for(self, owner: Owner) -> str:
        """Its name in the ledger: `team:core/month/usd`; an owner has one of each."""
        rolling = "/rolling" if self.rolling else ""
        return f"{owner.kind}:{owner.name}/{self.window}{rolling}/{self.unit}"


class RateLimit(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How much may be asked within a sliding time; one of `requests`, `tokens`, `concurrent`.

    `per` belongs to requests and tokens; `concurrent` is how many may run at once.
    """

    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None
    per: Literal["minute", "hour", "day"] | None = None
    mode: Mode = "enforce"

    def __post_init__(self) -> None:
        given = [n for n in (self.requests, self.tokens, self.concurrent) if n is not None]
        if len(given) != 1:
            raise ValueError("a limit has one of requests, tokens and concurrent")
        if given[0] < 1:
            raise ValueError("a limit is a number from 1 on")
        if (self.concurrent is None) == (self.per is None):
            raise ValueError("requests and tokens have per, concurrent has not")

    @property
    def measure(self) -> Measure:
        """What it counts."""
        if self.requests is not None:
            return "requests"
        return "tokens" if self.tokens is not None else "concurrent"

    @property
    def amount(self) -> int:
        """How much of it."""
        amount = next(n for n in (self.requests, self.tokens, self.concurrent) if n is not None)
        return amount


class ModelRules(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """Globs over `provider/model`; `deny` wins, an absent `allow` allows all."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    mode: Mode = "enforce"

    def __post_init__(self) -> None:
        if self.allow is not None and not self.allow:
            raise ValueError("an empty allow list is ambiguous: leave it out, or deny *")


class Rules(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The rules of one owner. `time_zone` is the IANA name its calendar windows follow."""

    time_zone: str | None = None
    models: ModelRules | None = None
    limits: tuple[RateLimit, ...] = ()
    budgets: tuple[Budget, ...] = ()


class Customer(Rules, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Above teams."""


class Team(Rules, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Above virtual keys, below at most one customer."""

    customer: str | None = None


class VirtualKey(Rules, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A key of a gateway that stands for a person or a program.

    Attributes:
        public_id: the twelve characters of `ogk-<public>-<secret>` that may be shown.
        secret_hash: `<salt>$<SHA-256 of salt and secret>`, both in hexadecimal digits.
        expires_at: ISO 8601 with an offset; from then on the key is refused.
        tags: free words for whoever reads the list.
    """

    public_id: str
    secret_hash: str
    team: str | None = None
    active: bool = True
    expires_at: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def expires_us(self) -> int | None:
        """The same in UTC microseconds; a time without offset is UTC, and what is none is past."""
        if self.expires_at is None:
            return None
        try:
            at = datetime.fromisoformat(self.expires_at)
        except ValueError:
            return 0
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1_000_000)


_NOTHING: Mapping[str, Rules] = MappingProxyType({})


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All rules there are, by name; `revision` grows with every change."""

    revision: int = 0
    virtual_keys: Mapping[str, VirtualKey] = MappingProxyType({})
    teams: Mapping[str, Team] = MappingProxyType({})
    customers: Mapping[str, Customer] = MappingProxyType({})
    users: Mapping[str, Rules] = _NOTHING
    sessions: Mapping[str, Rules] = _NOTHING

    def owners_of(
        self, *, session_id: str | None, user: str | None, virtual_key: str | None
    ) -> tuple[tuple[Owner, Rules], ...]:
        """Who has a say in a request, nearest first: session, user, key, team, customer.

        Owners without any rule of their own are left out.
        """
        found: list[tuple[Owner, Rules | None]] = []
        if session_id is not None:
            found.append((Owner("session", session_id), self.sessions.get(session_id)))
        if user is not None:
            found.append((Owner("user", user), self.users.get(user)))
        key = None if virtual_key is None else self.virtual_keys.get(virtual_key)
        if virtual_key is not None:
            found.append((Owner("vkey", virtual_key), key))
        team = None if key is None or key.team is None else self.teams.get(key.team)
        if key is not None and key.team is not None:
            found.append((Owner("team", key.team), team))
        if team is not None and team.customer is not None:
            customer = self.customers.get(team.customer)
            found.append((Owner("customer", team.customer), customer))
        return tuple((owner, rules) for owner, rules in found if rules is not None)


KINDS: Mapping[OwnerKind, type[Rules]] = MappingProxyType(
    {
        "session": Rules,
        "user": Rules,
        "vkey": VirtualKey,
        "team": Team,
        "customer": Customer,
    }
)
"""What an owner's document holds, by its kind."""


def document_of(rules: Rules) -> str:
    """The rules of an owner as the ledger keeps them (JSON)."""
    return msgspec.json.encode(rules).decode()


@lru_cache(maxsize=4096)
def rules_of(kind: OwnerKind, document: str) -> Rules:
    """The rules of a document; thousands of sessions may have the same.

    Raises:
        msgspec.ValidationError: it is not the document of such an owner.
    """
    return msgspec.json.decode(document, type=KINDS[kind])


def policy_of(revision: int, documents: Iterable[tuple[str, str, str | None]]) -> Policy:
    """All rules, from documents as the ledger keeps them: kind of owner, its name, JSON.

    Raises:
        PolicyDenied: `policy-unreadable`, naming the owner whose rules make no sense.
    """
    by_kind: dict[str, dict[str, Rules]] = {kind: {} for kind in KINDS}
    for kind, name, text in documents:
        try:
            by_kind[kind][name] = rules_of(cast(OwnerKind, kind), text or "")
        except (KeyError, msgspec.DecodeError) as error:
            raise PolicyDenied(
                "policy-unreadable",
                f"the rules of {kind} {name} cannot be read: {error}",
                hint="ogate doctor",
            ) from error
    return Policy(
        revision=revision,
        sessions=by_kind["session"],
        users=by_kind["user"],
        virtual_keys=cast(Mapping[str, VirtualKey], by_kind["vkey"]),
        teams=cast(Mapping[str, Team], by_kind["team"]),
        customers=cast(Mapping[str, Customer], by_kind["customer"]),
    )
