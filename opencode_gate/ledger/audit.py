"""The audit trail: what was changed, refused and settled, each event tied to the one before.

The idea: the hash of an event is an HMAC over all of it and over the hash before it, with a key
that is kept beside the ledger and not in it. Whoever has the database alone can change, move,
add or remove events, but not so that the rest still fits. The head, the last event's number and
hash, is sealed in the ledger and kept once more outside it, so that cutting off the end and
putting back an old copy show too. The invariants: nothing here reads a clock, a file or a
database; a hash covers the very text that is stored; no content gets into an event, only keyed
hashes of it.
"""

import hmac
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from opencode_gate.core.semconv import CostQuality, ExchangeStatus, Operation, UsageQuality
from opencode_gate.ledger.records import ExchangeRecord

EventKind: TypeAlias = Literal["policy", "exchange", "refusal", "break"]

_CONTENT_HASH_BYTES = 16
_NO_KEY_SECRET = "secret_hash"
"""Of a virtual key's rules: whether it changed is told, by a keyed hash."""


class Head(NamedTuple):
    """How far a trail has come: the number and the hash of its last event."""

    seq: int = 0
    hash: str = ""


class Draft(NamedTuple):
    """An event that is not in the trail yet; `document` is JSON."""

    kind: EventKind
    document: str


class AuditEvent(NamedTuple):
    """An event as it is kept. `at_us`: when it was written, UTC microseconds."""

    seq: int
    at_us: int
    kind: str
    document: str
    hash: str


class AuditSeal:
    """What only the holder of the key can make."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash_of(self, before: str, seq: int, at_us: int, kind: str, document: str) -> str:
        """The hash of an event that follows the one with the hash `before`."""
        # The document comes last and the rest has no line ends: no two events read the same.
        text = f"event\n{before}\n{seq}\n{at_us}\n{kind}\n{document}"
        return hmac.digest(self._key, text.encode(), "sha256").hex()

    def of_head(self, head: Head) -> str:
        """The seal of a head."""
        return hmac.digest(self._key, f"head\n{head.seq}\n{head.hash}".encode(), "sha256").hex()

    def of_content(self, content: bytes) -> str:
        """A keyed hash by which a content that somebody shows can be recognised."""
        return blake2b(
            content, key=self._key, digest_size=_CONTENT_HASH_BYTES, person=b"ogate-content"
        ).hexdigest()


class _ExchangeEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    exchange: str
    session: str
    user: str | None = None
    virtual_key: str | None = None
    team: str | None = None
    customer: str | None = None
    operation: Operation
    provider: str
    credential: str | None = None
    model: str | None = None
    response_model: str | None = None
    downgraded_from: str | None = None
    started_at_us: int
    duration_us: int | None = None
    status: ExchangeStatus
    http_status: int | None = None
    denial: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    usage_quality: UsageQuality | None = None
    cost_nano_usd: int | None = None
    cost_quality: CostQuality | None = None
    output_limit_tokens: int | None = None
    decisions: Any = None
    request_hash: str | None = None
    answer_hash: str | None = None
    replaces: str | None = None


_encoder = msgspec.json.Encoder()


def exchange_event(
    exchange: ExchangeRecord, user: str | None = None, replaces: str | None = None
) -> Draft:
    """The event of a settled exchange, or of a refusal.

    Args:
        user: whose session it was.
        replaces: the lesser end of it that the trail has an event of already.

    Raises:
        ValueError: it has a text that is no Unicode.
    """
    usage = exchange.usage
    is_refusal = exchange.status is ExchangeStatus.DENIED
    event = _ExchangeEvent(
        exchange=exchange.id,
        session=exchange.session_id,
        user=user,
        virtual_key=exchange.virtual_key,
        team=exchange.team,
        customer=exchange.customer,
        operation=exchange.operation,
        provider=exchange.provider_name,
        credential=exchange.credential_name,
        model=exchange.request_model,
        response_model=exchange.response_model,
        downgraded_from=exchange.downgraded_from,
        started_at_us=exchange.started_at_us,
        duration_us=exchange.duration_us,
        status=exchange.status,
        http_status=exchange.http_status,
        denial=exchange.denial,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output,
        usage_quality=None if usage.is_empty else exchange.usage_quality,
        cost_nano_usd=exchange.cost_nano_usd,
        cost_quality=None if exchange.cost_nano_usd is None else exchange.cost_quality,
        output_limit_tokens=exchange.output_limit_tokens,
        decisions=None if exchange.decisions is None else _value_of(exchange.decisions),
        request_hash=exchange.request_hash,
        answer_hash=exchange.answer_hash,
        replaces=replaces,
    )
    return Draft("refusal" if is_refusal else "exchange", _encoder.encode(event).decode())


def policy_event(
    owner: tuple[str, str],
    before: str | None,
    after: str | None,
    operator: str,
    seal: AuditSeal,
) -> Draft:
    """The event of a change of somebody's rules.

    Args:
        owner: its kind and name.
        operator: who changed them.
    """
    document = {
        "operator": operator,
        "kind": owner[0],
        "name": owner[1],
        "before": _rules_shown(before, seal),
        "after": _rules_shown(after, seal),
    }
    return Draft("policy", _encoder.encode(document).decode())


def break_event(known: Head | None, found: Head | None) -> Draft:
    """The event that tells of a trail that is not the one it was.

    Args:
        known: where it ended by what is known; `None` if nothing says so any more.
        found: where it ends; `None` if nothing is left of it.
    """
    document = {
        name: None if head is None else head._asdict()
        for name, head in (("known", known), ("found", found))
    }
    return Draft("break", _encoder.encode(document).decode())


def _rules_shown(document: str | None, seal: AuditSeal) -> Any:
    rules = None if document is None else _value_of(document)
    if isinstance(rules, dict) and isinstance(rules.get(_NO_KEY_SECRET), str):
        rules[_NO_KEY_SECRET] = seal.of_content(rules[_NO_KEY_SECRET].encode())
    return rules


def _value_of(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
