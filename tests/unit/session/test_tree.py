"""The conversations of a session hang together, and add up to it."""

from opencode_gate.core.semconv import ConversationKind, ExchangeStatus
from opencode_gate.ledger.records import ConversationRecord, ExchangeRecord
from opencode_gate.ledger.totals import total_of
from opencode_gate.session.tree import ConversationNode, conversation_tree
from tests.support.recorded_run import PRICE_NANO_USD, at_us, exchange

SESSION = "01SESSION"


def known(id: str, parent_id: str | None = None, **changes) -> ConversationRecord:
    return ConversationRecord(
        id=id, session_id=SESSION, parent_id=parent_id, title=f"Title of {id}", **changes
    )


def flat(nodes: tuple[ConversationNode, ...]) -> list[ConversationNode]:
    return [each for node in nodes for each in (node, *flat(node.children))]


def shape(nodes: tuple[ConversationNode, ...]) -> list[tuple]:
    return [(str(node.record.kind), node.record.id, shape(node.children)) for node in nodes]


EXCHANGES: list[ExchangeRecord] = [
    exchange("t", "ses_main", 0, (10, 1), kind=ConversationKind.TITLE),
    exchange("m1", "ses_main", 5, (100, 10)),
    exchange(
        "s1", "ses_sub", 20, (7, 7), kind=ConversationKind.SUBAGENT,
        parent_conversation_id="ses_main",
    ),
    exchange(
        "d1", "ses_deep", 30, (3, 3), kind=ConversationKind.SUBAGENT,
        parent_conversation_id="ses_sub", length_ms=100,
    ),
    exchange("c", "ses_main", 200, (50, 5), kind=ConversationKind.COMPACTION),
    exchange("m2", "ses_main", 300, (100, 10)),
    exchange("o", "ses_other", 400, (1, 1)),
]  # fmt: skip


def test_titles_compactions_and_sub_agents_hang_under_their_conversation():
    """By the requests alone: Opencode's database may be gone."""
    assert shape(conversation_tree(SESSION, EXCHANGES, [])) == [
        ("main", "ses_main", [
            ("title", "ses_main", []),
            ("subagent", "ses_sub", [("subagent", "ses_deep", [])]),
            ("compaction", "ses_main", []),
        ]),
        ("main", "ses_other", []),
    ]  # fmt: skip


def test_what_hangs_below_is_rolled_up_and_only_there():
    main, other = conversation_tree(SESSION, EXCHANGES, [])
    assert main.own.requests == 2
    assert main.own.cost_nano_usd == 220 * PRICE_NANO_USD
    assert main.rolled_up.requests == main.requests == 6
    assert main.rolled_up.cost_nano_usd == (220 + 11 + 14 + 6 + 55) * PRICE_NANO_USD
    sub = main.children[1]
    assert (sub.own.input_tokens, sub.rolled_up.input_tokens) == (7, 10)
    assert other.rolled_up == other.own


def test_the_roots_are_the_session():
    tree = conversation_tree(SESSION, EXCHANGES, [])
    everything = total_of(EXCHANGES)
    assert sum(node.rolled_up.requests for node in tree) == everything.requests
    assert sum(node.rolled_up.cost_nano_usd or 0 for node in tree) == everything.cost_nano_usd
    assert sum(node.own.cost_nano_usd or 0 for node in flat(tree)) == everything.cost_nano_usd


def test_a_conversation_lasts_from_its_first_request_to_the_end_of_the_last_below_it():
    main = conversation_tree(SESSION, EXCHANGES, [])[0]
    assert main.started_at_us == at_us(0)
    assert main.duration_us == 310_000
    sub = main.children[1]
    assert sub.duration_us == 110_000, "its own sub-agent goes on longer than itself"


def test_opencodes_database_gives_titles_names_and_parents():
    """A version that leaves the parent out of its requests, too."""
    nameless = [exchange("m", "ses_main", 0, (1, 1)), exchange("s", "ses_sub", 5, (1, 1))]
    records = [
        known("ses_main", agent_name="build", directory="/p"),
        known("ses_sub", "ses_main", kind=ConversationKind.SUBAGENT, agent_name="explore"),
        known("ses_idle"),
    ]
    (main,) = conversation_tree(SESSION, nameless, records)
    assert (main.record.title, main.record.directory) == ("Title of ses_main", "/p")
    (sub,) = main.children
    assert (sub.record.kind, sub.record.agent_name) == (ConversationKind.SUBAGENT, "explore")


def test_a_parent_that_did_nothing_here_itself_is_drawn():
    """Its own model went past the gateway."""
    only_sub = [exchange("s", "ses_sub", 5, (1, 1), parent_conversation_id="ses_main")]
    (main,) = conversation_tree(SESSION, only_sub, [known("ses_main")])
    assert (main.record.title, main.own.requests, main.requests) == ("Title of ses_main", 0, 1)
    assert main.own.cost_nano_usd is None
    assert main.duration_us == 10_000


def test_what_names_no_conversation_stands_alone():
    (node,) = conversation_tree(SESSION, [exchange("x", None, 0, (1, 1))], [])
    assert (node.record.id, node.record.kind) == ("", ConversationKind.OTHER)
    assert node.requests == 1


def test_what_was_denied_costs_nothing_anywhere():
    denied = exchange("x", "ses_main", 0, None, status=ExchangeStatus.DENIED)
    (node,) = conversation_tree(SESSION, [denied], [])
    assert (node.requests, node.rolled_up.cost_nano_usd) == (0, None)


def test_conversations_that_are_their_own_parents_end():
    records = [known("ses_a", "ses_b"), known("ses_b", "ses_a")]
    exchanges = [exchange("a", "ses_a", 0, (1, 1)), exchange("b", "ses_b", 0, (1, 1))]
    tree = conversation_tree(SESSION, exchanges, records)
    assert {node.record.id for node in flat(tree)} == {"ses_a", "ses_b"}


def test_an_empty_session_has_no_tree():
    assert conversation_tree(SESSION, [], [known("ses_idle")]) == ()
