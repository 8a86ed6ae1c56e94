"""Virtual keys, teams and customers: made, changed, removed.

The invariants: a name belongs to one of a kind; the secret of a key leaves `ogate` once, when
it is made; nothing that others still belong to is removed.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from opencode_gate.config.paths import Paths
from opencode_gate.core.errors import UsageError
from opencode_gate.core.local_time import day_start_us
from opencode_gate.core.secrets import Secret
from opencode_gate.governance.policy import Owner, Policy, Rules, VirtualKey
from opencode_gate.governance.virtual_keys import new_virtual_key
from opencode_gate.session.policy_changes import change_rules, rules_for
from opencode_gate.session.policy_names import GROUPS, NOUNS
from opencode_gate.session.policy_sense import owned

KeyState = Literal["active", "disabled", "expired"]


class MadeKey(NamedTuple):
    """A virtual key just made or rotated, and its text, which nobody can be shown again."""

    owner: Owner
    key: VirtualKey
    token: Secret


def create(paths: Paths, owner: Owner, rules: Rules, *, at_us: int) -> Policy:
    """Makes a team or a customer.

    Raises:
        UsageError: `owner-exists`.
        ConfigError: `bad-policy`, its rules make no sense.
    """

    def edit(policy: Policy) -> dict[Owner, Rules | None]:
        _require_new(policy, owner)
        return {owner: rules}

    return change_rules(paths, edit, at_us=at_us).after


def create_key(
    paths: Paths, owner: Owner, rules: Callable[[VirtualKey], VirtualKey], *, at_us: int
) -> MadeKey:
    """Makes a virtual key; `rules` is given the bare key.

    Raises:
        UsageError: `owner-exists`.
        ConfigError: `bad-policy`.
    """
    made = new_virtual_key()
    bare = VirtualKey(public_id=made.public_id, secret_hash=made.secret_hash)
    key = rules(bare)
    create(paths, owner, key, at_us=at_us)
    return MadeKey(owner, key, Secret(made.token))


def rotate_key(
    paths: Paths, owner: Owner, *, expires_at: str | None, keeps_expiry: bool, at_us: int
) -> MadeKey:
    """A new secret for a key under the same name; the old one is refused from then on.

    Args:
        expires_at: until when the key holds from now on, unless `keeps_expiry`.

    Raises:
        UsageError: `no-such-owner`; or the key has expired and nothing says until when it holds.
    """
    tokens: list[str] = []

    def renewed(key: VirtualKey) -> VirtualKey:
        made = new_virtual_key(public_id=key.public_id)
        tokens.append(made.token)
        until = key.expires_at if keeps_expiry else expires_at
        if until is not None and instant_us(until) <= at_us:
            raise UsageError(
                "usage",
                f"virtual key {owner.name} has expired, and a new secret would have too",
                hint=f"ogate vkeys rotate {owner.name} --expires 30d",
            )
        return msgspec.structs.replace(key, secret_hash=made.secret_hash, expires_at=until)

    key = change_key(paths, owner, renewed, at_us=at_us)
    return MadeKey(owner, key, Secret(tokens[0]))


def change_key(
    paths: Paths, owner: Owner, edit: Callable[[VirtualKey], VirtualKey], *, at_us: int
) -> VirtualKey:
    """Changes a virtual key, and returns it as it is then.

    Raises:
        UsageError: `no-such-owner`.
        ConfigError: `bad-policy`.
    """
    changed = change(paths, owner, lambda rules: edit(_key(rules)), at_us=at_us)
    return _key(changed)


def change(paths: Paths, owner: Owner, edit: Callable[[Rules], Rules], *, at_us: int) -> Rules:
    """Changes the rules of an owner, and returns them as they are then.

    Raises:
        UsageError: `no-such-owner`.
        ConfigError: `bad-policy`.
    """

    def edit_policy(policy: Policy) -> dict[Owner, Rules | None]:
        return {owner: edit(rules_for(policy, owner))}

    after = change_rules(paths, edit_policy, at_us=at_us).after
    return owned(after, owner.kind)[owner.name]


def remove(paths: Paths, owner: Owner, *, at_us: int) -> None:
    """Removes an owner with its rules; what was spent stays in the ledger.

    Raises:
        UsageError: `no-such-owner`, or `still-in-use`: others belong to it.
    """

    def edit(policy: Policy) -> dict[Owner, Rules | None]:
        require_unused(policy, owner)
        return {owner: None}

    change_rules(paths, edit, at_us=at_us)


def require_unused(policy: Policy, owner: Owner) -> None:
    """Nobody belongs to it.

    Raises:
        UsageError: `no-such-owner`, or `still-in-use`.
    """
    rules_for(policy, owner)
    below = members(policy, owner)
    if below:
        kind = below[0].kind
        raise UsageError(
            "still-in-use",
            f"{owner} cannot be removed: {len(below)} "
            f"{NOUNS[kind]}{' still belongs' if len(below) == 1 else 's still belong'} to it",
            details=tuple(str(one) for one in below[:10]),
            hint=f"ogate {GROUPS[kind]} set {below[0].name} --clear {owner.kind}",
        )


def members(policy: Policy, owner: Owner) -> list[Owner]:
    """Who belongs to a team or a customer directly."""
    if owner.kind == "team":
        keys = policy.virtual_keys.items()
        return [Owner("vkey", name) for name, key in keys if key.team == owner.name]
    if owner.kind == "customer":
        teams = policy.teams.items()
        return [Owner("team", name) for name, team in teams if team.customer == owner.name]
    return []


def key_state(key: VirtualKey, at_us: int) -> KeyState:
    """Whether a key is let in."""
    if not key.active:
        return "disabled"
    has_expired = key.expires_at is not None and instant_us(key.expires_at) <= at_us
    return "expired" if has_expired else "active"


def expiry(text: str, *, at_us: int, time_zone: str) -> str | None:
    """Until when a key holds, ISO 8601 with an offset; `None` for ever.

    Args:
        text: `30d`, a day that still counts, a time, or `never`.

    Raises:
        UsageError: it is none of these, or has passed.
    """
    if text == "never":
        return None
    zone = ZoneInfo(time_zone)
    until = _moment(text, at_us, zone)
    if until is None:
        raise UsageError(
            "usage",
            f"{text!r} is not a day or a time",
            hint="--expires 2026-12-31, 2026-12-31T18:00, 30d, or never",
        )
    if until.timestamp() * 1e6 <= at_us:
        raise UsageError("usage", f"{text} has passed", hint="--expires 30d")
    return until.isoformat()


def instant_us(text: str) -> int:
    """The UTC microsecond of an ISO 8601 time with an offset."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def _moment(text: str, at_us: int, zone: ZoneInfo) -> datetime | None:
    number = text.removesuffix("d")
    if number != text and number.isascii() and number.isdigit() and len(number) <= 5:
        now = datetime.fromtimestamp(at_us // 1_000_000, zone)
        return now + timedelta(days=int(number))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) == len("2026-12-31"):
        after = moment.date() + timedelta(days=1)
        return datetime.fromtimestamp(day_start_us(after, zone.key) / 1e6, zone)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _require_new(policy: Policy, owner: Owner) -> None:
    if owner.name in owned(policy, owner.kind):
        raise UsageError(
            "owner-exists",
            f"there is a {NOUNS[owner.kind]} {owner.name!r} already",
            hint=f"ogate {GROUPS[owner.kind]} set {owner.name} changes it",
        )


def _key(rules: Rules) -> VirtualKey:
    assert isinstance(rules, VirtualKey)
    return rules
