"""The ledger's account of a session beside Opencode's own, every difference with its reason.

Opencode's figure is the one it shows: the running totals of the conversations a person sees,
which leave out sub-agents, titles and answers that were broken off. The invariant: that figure
plus the differences is the ledger's, exactly and in every column, because each difference is a
sum over exchanges and turns and each of those is in one sum alone; what no reason explains is
named `unknown` and never spread over the others.
"""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Why the ledger counts more than Opencode, or less."""

    TITLES = "titles"
    """Opencode counts no title calls."""
    SUB_AGENTS = "sub-agents"
    """A sub-agent's work is not in the totals of the conversation that started it."""
    ASIDE = "aside"
    """Calls beside the turns, such as summaries, which Opencode keeps no answer of."""
    INTERRUPTED = "interrupted"
    """An answer was broken off: the provider bills what it made, Opencode counts nothing."""
    RETRIES = "retries"
    """Tries before the one Opencode kept, billed too."""
    REFUSED = "refused"
    """The provider refused the request; nothing was billed, and Opencode has no answer."""
    UNREAD_USAGE = "unread-usage"
    """The answer was whole, and Opencode read no counts from it."""
    ESTIMATED = "estimated"
    """The provider stated no usage; the ledger's counts are estimates."""
    REPORTED_COST = "reported-cost"
    """The provider said what it costs; Opencode reckons with its catalogue's prices."""
    PRICES = "prices"
    """The same tokens at other prices."""
    NO_PRICE = "no-price"
    """The ledger knows no price."""
    NOT_RECORDED = "not-recorded"
    """Opencode has no answer for it: undone or deleted there, or another program's request."""
    COPIES = "copies"
    """Opencode counts an answer again in a conversation that was forked from its own."""
    RUNNING_TOTAL = "running-total"
    """Opencode's total of a conversation is not the sum of its own answers."""
    BYPASS = "bypass"
    """Opencode has an answer the gateway never saw."""
    DIRECT = "direct"
    """The same, as the user wanted it: a subscription that does not pass the gateway."""
    ROUNDING = "rounding"
    """Opencode keeps amounts as floating-point numbers."""
    UNKNOWN = "unknown"
    """None of these."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Sums; what is unknown is not in them. `requests` are answers on Opencode's side."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_nano_usd=self.cost_nano_usd + other.cost_nano_usd,
        )

    def __sub__(self, other: "Figures") -> "Figures":
        return self + Figures(
            requests=-other.requests,
            input_tokens=-other.input_tokens,
            output_tokens=-other.output_tokens,
            cost_nano_usd=-other.cost_nano_usd,
        )


NOTHING = Figures()


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation, seen from all three sides.

    Attributes:
        conversation_id: `None` for exchanges that named none.
        ledger: ogate's count.
        agent: the sum of Opencode's answers.
        running_total: what Opencode's own total of the conversation grew by; `None` where this
            version of it keeps none.
        reported: the exchanges whose cost the provider stated, with that cost.
    """

    conversation_id: str | None
    parent_id: str | None
    title: str | None
    ledger: Figures
    agent: Figures
    running_total: Figures | None
    reported: Figures


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Why the two figures differ: the ledger's less Opencode's, and how many cases that is."""

    reason: Reason
    cases: int
    figures: Figures


class Bypass(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one model that Opencode has and the gateway never saw.

    Attributes:
        is_expected: the user left this subscription direct.
        is_certain: they are surely this session's; else another Opencode in the same folder
            may have had them.
        mend: the command that brings the provider through the gateway; `None` if it is expected.
    """

    provider_name: str
    model: str | None
    answers: int
    figures: Figures = NOTHING
    is_expected: bool = False
    is_certain: bool = True
    mend: str | None = None


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison.

    Attributes:
        agent: what Opencode shows; with the differences added it is `ledger`.
        reported: what providers stated as cost, a part of `ledger`.
        unpriced_requests: exchanges whose cost nobody knows; they are in no amount.
    """

    ledger: Figures
    agent: Figures
    reported: Figures
    unpriced_requests: int = 0
    rows: tuple[Reconciled, ...] = ()
    differences: tuple[Difference, ...] = ()
    bypasses: tuple[Bypass, ...] = ()


def encoded(reconciliation: Reconciliation) -> str:
    """The comparison as a JSON document, for keeping it."""
    import msgspec

    return msgspec.json.encode(reconciliation).decode()


def decoded(document: str) -> Reconciliation | None:
    """A comparison that was kept; `None` if it is of another version's form."""
    import msgspec

    try:
        return msgspec.json.decode(document, type=Reconciliation)
    except msgspec.DecodeError:
        return None
