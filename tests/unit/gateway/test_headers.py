"""The credential is swapped in place, and nothing else of a request is touched."""

from email.utils import formatdate

import pytest
from msgspec.structs import replace

from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.core.secrets import Secret
from opencode_gate.core.semconv import WireFormat
from opencode_gate.gateway.headers import (
    FieldSwap,
    described,
    request_headers,
    request_query,
    response_headers,
)

TOKEN = b"ogs-token"
KEY = Secret("sk-real")
ROW = ProviderRow(id="a", name="A", base_url="https://a.example/v1")


def _passed(upstream: list[tuple[bytes, bytes]], *, keep_length: bool) -> list[tuple[bytes, bytes]]:
    return response_headers(*described(upstream), keep_length=keep_length)


def test_the_token_is_swapped_wherever_it_stands_and_the_rest_stays_in_order() -> None:
    client = [
        (b"x-first", b"1"),
        (b"authorization", b"Bearer ogs-token"),
        (b"anthropic-beta", b"a,b"),
        (b"x-api-key", b"ogs-token"),
    ]
    assert request_headers(client, ROW, TOKEN, KEY) == [
        (b"x-first", b"1"),
        (b"authorization", b"Bearer sk-real"),
        (b"anthropic-beta", b"a,b"),
        (b"x-api-key", b"sk-real"),
        (b"accept-encoding", b"identity"),
    ]


def test_a_provider_without_a_key_never_sees_the_token() -> None:
    client = [(b"authorization", b"Bearer ogs-token"), (b"x-ogate-token", b"ogs-token")]
    assert request_headers(client, ROW, TOKEN, None) == [(b"accept-encoding", b"identity")]


def test_our_own_headers_stay_here_even_with_a_key() -> None:
    sent = request_headers([(b"x-ogate-token", b"ogs-token")], ROW, TOKEN, KEY)
    assert b"sk-real" not in b"".join(value for _, value in sent)


@pytest.mark.parametrize(
    "name", [b"x-http-method-override", b"x-http-method", b"x-method-override"]
)
def test_nobody_makes_another_request_of_this_one_on_its_way(name: bytes) -> None:
    """Servers that know such a header take the request for that: a listing would generate."""
    assert request_headers([(name, b"POST")], ROW, TOKEN, None) == [
        (b"accept-encoding", b"identity")
    ]


def test_hop_by_hop_headers_stay_here() -> None:
    client = [
        (b"connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"127.0.0.1:1"),
        (b"accept-encoding", b"gzip, br"),
    ]
    assert request_headers(client, ROW, TOKEN, KEY) == [(b"accept-encoding", b"identity")]


@pytest.mark.parametrize(
    "options",
    [
        [b"x-hop"],
        [b"X-Hop"],
        [b"keep-alive, x-Hop"],
        [b"close,x-hop ,te"],
        [b",x-hop\t"],
        [b"keep-alive", b"x-hop"],
        [b"x-hop, " + b"x" * 300],
    ],
)
def test_what_a_connection_field_names_stays_here(options: list[bytes]) -> None:
    """It was meant for the gateway alone, whichever side sent it (RFC 9110, section 7.6.1)."""
    swap = FieldSwap(ROW, TOKEN, KEY)
    named = [(b"x-hop", b"1"), *((b"connection", option) for option in options), (b"x-hops", b"2")]
    for _ in range(2):
        assert swap.headers(named) == [(b"x-hops", b"2"), (b"accept-encoding", b"identity")]
        assert swap.headers([(b"x-hop", b"1"), (b"connection", b"keep-alive")]) == [
            (b"x-hop", b"1"),
            (b"accept-encoding", b"identity"),
        ]
        upstream = [(name.title(), value) for name, value in named]
        assert _passed(upstream, keep_length=True) == [(b"X-Hops", b"2")]
        unnamed = [(b"X-Hop", b"1"), (b"Connection", b"keep-alive")]
        assert _passed(unnamed, keep_length=True) == unnamed[:1]


@pytest.mark.parametrize(
    ("header", "expected"),
    [("cf-aig-authorization", b"Bearer sk-real"), ("X-Proxy-Key", b"sk-real")],
)
def test_a_provider_sent_elsewhere_gets_its_key_in_the_header_it_names(
    header: str, expected: bytes
) -> None:
    row = ProviderRow(
        id="a",
        name="A",
        base_url="https://a.example/v1",
        auth_header=header,
        headers={"X-Team": "blue"},
    )
    sent = request_headers([(b"authorization", b"Bearer ogs-token")], row, TOKEN, KEY)
    assert (header.lower().encode(), expected) in sent
    assert (b"x-team", b"blue") in sent
    assert b"authorization" not in [name for name, _ in sent]


def test_the_token_in_the_query_is_swapped_or_dropped() -> None:
    asked = b"alt=sse&key=ogs-token"
    assert request_query(asked, ROW, TOKEN, KEY) == b"alt=sse&key=sk-real"
    assert request_query(asked, ROW, TOKEN, None) == b"alt=sse"
    assert request_query(b"a=%2F", ROW, TOKEN, KEY) == b"a=%2F"


def test_a_key_stays_one_value_of_the_query() -> None:
    """Whatever characters it has."""
    assert request_query(b"key=ogs-token&a=b", ROW, TOKEN, Secret("a&b+c=%")) == (
        b"key=a%26b%2Bc%3D%25&a=b"
    )


def test_a_key_that_goes_into_a_header_of_its_own_is_not_in_the_address_too() -> None:
    row = replace(ROW, auth_header="X-Proxy-Key")
    assert request_query(b"alt=sse&key=ogs-token", row, TOKEN, KEY) == b"alt=sse"


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        (b"Retry-After", b"2", True),
        (b"retry-after", b"60", True),
        (b"retry-after", b"61", False),
        (b"retry-after-ms", b"60000", True),
        (b"retry-after-ms", b"3600000", False),
        (b"retry-after", formatdate(4102444800, usegmt=True).encode(), False),
        (b"retry-after", b"soon", False),
        (b"retry-after", b"Mon, 01 Jan 99999999999999999999 00:00:00 GMT", False),
    ],
)
def test_a_long_retry_after_is_dropped(name: bytes, value: bytes, passes: bool) -> None:
    passed = _passed([(name, value)], keep_length=True)
    assert passed == ([(name, value)] if passes else [])


def test_an_answer_keeps_its_headers_but_those_of_the_connection() -> None:
    upstream = [
        (b"Content-Type", b"application/json"),
        (b"Connection", b"close"),
        (b"Content-Length", b"2"),
        (b"x-request-id", b"req_1"),
    ]
    assert _passed(upstream, keep_length=True) == [upstream[0], upstream[2], upstream[3]]
    assert _passed(upstream, keep_length=False) == [upstream[0], upstream[3]]


def test_a_header_of_the_row_takes_the_place_of_the_clients() -> None:
    """A company proxy that wants its own `x-api-key` must not get two of them."""
    row = ProviderRow(id="a", name="A", base_url="https://h/v1", headers={"X-Api-Key": "proxy"})
    sent = request_headers([(b"x-api-key", b"client"), (b"x-a", b"b")], row, b"token", None)
    assert [value for name, value in sent if name == b"x-api-key"] == [b"proxy"]
    assert (b"x-a", b"b") in sent


VIRTUAL = b"ogk-abcdefghijkl-" + b"s" * 48


@pytest.mark.parametrize(
    ("wire", "npm", "expected"),
    [
        ("openai-chat", "@ai-sdk/openai-compatible", [(b"authorization", b"Bearer sk-real")]),
        ("openai-responses", "@ai-sdk/openai", [(b"authorization", b"Bearer sk-real")]),
        ("anthropic", "@ai-sdk/anthropic", [(b"x-api-key", b"sk-real")]),
        (
            "anthropic",
            "@ai-sdk/openai-compatible",
            [(b"x-api-key", b"sk-real"), (b"authorization", b"Bearer sk-real")],
        ),
        ("gemini", "@ai-sdk/google", [(b"x-goog-api-key", b"sk-real")]),
        ("unknown", "@ai-sdk/anthropic", [(b"x-api-key", b"sk-real")]),
        ("unknown", "@ai-sdk/google", [(b"x-goog-api-key", b"sk-real")]),
        ("unknown", None, [(b"authorization", b"Bearer sk-real")]),
    ],
)
@pytest.mark.parametrize(
    "where",
    [
        (b"authorization", b"Bearer " + VIRTUAL),
        (b"x-api-key", VIRTUAL),
        (b"x-goog-api-key", VIRTUAL),
        (b"api-key", VIRTUAL),
        (b"x-ogate-key", VIRTUAL),
    ],
)
def test_whatever_place_a_client_chose_the_key_goes_where_the_format_has_it(
    where: tuple[bytes, bytes],
    wire: str,
    npm: str | None,
    expected: list[tuple[bytes, bytes]],
) -> None:
    row = replace(ROW, npm=npm)
    client = [(b"anthropic-version", b"1"), where]
    assert request_headers(client, row, VIRTUAL, KEY, WireFormat(wire)) == [
        (b"anthropic-version", b"1"),
        (b"accept-encoding", b"identity"),
        *expected,
    ]


def test_what_a_client_sends_in_place_of_a_key_beside_its_virtual_key_stays_here() -> None:
    """Official SDKs insist on some key of their own."""
    client = [(b"authorization", b"Bearer unused"), (b"x-ogate-key", VIRTUAL)]
    sent = request_headers(client, ROW, VIRTUAL, KEY, WireFormat.OPENAI_CHAT)
    assert sent == [(b"accept-encoding", b"identity"), (b"authorization", b"Bearer sk-real")]
    assert request_headers(client, ROW, VIRTUAL, None, WireFormat.OPENAI_CHAT) == [
        (b"accept-encoding", b"identity")
    ]


def test_a_virtual_key_in_the_query_stays_here() -> None:
    """The provider's key then goes in its header, never in an address that servers log."""
    assert request_query(b"alt=sse&key=" + VIRTUAL, ROW, VIRTUAL, KEY) == b"alt=sse"


def test_a_header_the_row_names_wins_over_the_formats_own() -> None:
    row = replace(ROW, auth_header="x-proxy-key")
    sent = request_headers([(b"x-api-key", VIRTUAL)], row, VIRTUAL, KEY, WireFormat.OPENAI_CHAT)
    assert sent == [(b"accept-encoding", b"identity"), (b"x-proxy-key", b"sk-real")]


def test_what_is_remembered_of_headers_changes_nothing_and_is_bounded() -> None:
    """Many agents, each with ids of their own in the headers, must not fill the memory."""
    swap = FieldSwap(ROW, TOKEN, KEY)
    for number in range(1000):
        client = [
            (b"authorization", b"Bearer ogs-token"),
            (b"x-session-id", b"%d" % number),
            (b"content-length", b"%d" % number),
            (b"x-long", b"%d" % number + b"." * 1000),
        ]
        assert swap.headers(client) == request_headers(client, ROW, TOKEN, KEY)
        assert swap.headers(client)[:2] == [(b"authorization", b"Bearer sk-real"), client[1]]
    assert len(swap) <= 64
    assert all(len(value) < 1000 for _, value in swap)


def test_of_a_header_that_stands_there_twice_the_first_is_looked_at() -> None:
    of_note, end_to_end = described([(b"Content-Type", b"a"), (b"content-type", b"b")])
    assert of_note[b"content-type"] == (b"Content-Type", b"a")
    assert len(end_to_end) == 2
