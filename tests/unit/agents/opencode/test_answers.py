"""Every request must be put down to the conversation and purpose it states."""

from types import SimpleNamespace

import pytest

from opencode_gate.agents.opencode.answers import conversation_of, kind_of
from opencode_gate.core.semconv import ConversationKind


def facts(head: str) -> SimpleNamespace:
    return SimpleNamespace(instructions_head=head)


def test_the_conversation_and_its_parent_come_from_the_headers():
    headers = [
        (b"x-session-id", b"ses_2"),
        (b"x-session-affinity", b"ses_1"),
        (b"x-parent-session-id", b"ses_0"),
    ]
    assert conversation_of(headers) == ("ses_1", "ses_0")


def test_zen_names_its_conversation_in_a_header_of_its_own():
    assert conversation_of([(b"x-opencode-session", b"ses_9")]) == ("ses_9", None)


def test_no_header_means_no_conversation():
    assert conversation_of([(b"host", b"x")]) == (None, None)


@pytest.mark.parametrize("value", [b"", b"a" * 129, b"\xff\xfe", b"a\x00b"])
def test_an_id_that_is_none_is_not_taken(value):
    assert conversation_of([(b"x-session-id", value)]) == (None, None)


def test_titles_and_compactions_are_told_apart_from_work():
    title = "You are a title generator. You output ONLY a thread title. Nothing else."
    compaction = "You are a context summarization agent. You are given a conversation"
    assert kind_of(facts(title), None) is ConversationKind.TITLE
    assert kind_of(facts(title), "ses_0") is ConversationKind.TITLE
    assert kind_of(facts(compaction), None) is ConversationKind.COMPACTION
    assert kind_of(facts("You are OpenCode"), None) is ConversationKind.MAIN
    assert kind_of(facts("You are OpenCode"), "ses_0") is ConversationKind.SUBAGENT
    assert kind_of(facts(""), None) is ConversationKind.MAIN
