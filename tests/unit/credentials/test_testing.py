"""A key test calls the cheapest thing that proves the key, and names what is wrong."""

import socket

import pytest

from opencode_gate.core.secrets import Secret
from opencode_gate.credentials import testing
from tests.support.provider_stub import provider_stub

KEY = Secret("sk-test-0123456789abcdef")
LIST = {"object": "list", "data": [{"id": "m1"}, {"id": "m2"}]}
NO_KEY = (401, {"error": {"message": "no key"}})


def with_key(header, value, good):
    """Answers `good` to requests that carry the key, 401 to the others."""
    return lambda asked: good if asked.headers.get(header) == value else NO_KEY


def check(answer, *, prompt_model=None, secret=KEY, **facts):
    with provider_stub(answer) as stub:
        return testing.test_key(stub.row(**facts), secret, prompt_model=prompt_model), stub.asked


@pytest.mark.parametrize(
    ("facts", "header", "value"),
    [
        ({}, "authorization", f"Bearer {KEY.reveal()}"),
        ({"npm": "@ai-sdk/openai"}, "authorization", f"Bearer {KEY.reveal()}"),
        ({"npm": "@ai-sdk/anthropic"}, "x-api-key", KEY.reveal()),
        ({"npm": "@ai-sdk/google"}, "x-goog-api-key", KEY.reveal()),
        ({"npm": "@ai-sdk/azure"}, "api-key", KEY.reveal()),
        ({"wire": "anthropic"}, "x-api-key", KEY.reveal()),
        ({"auth_header": "X-Company-Key"}, "x-company-key", KEY.reveal()),
        ({"auth_header": "cf-aig-authorization"}, "cf-aig-authorization", f"Bearer {KEY.reveal()}"),
    ],
)
def test_the_key_is_sent_the_way_the_provider_wants_it(facts, header, value):
    test, asked = check(with_key(header, value, (200, LIST)), **facts)
    assert (test.result, test.detail) == ("ok", "2 models listed")
    assert asked[0].method == "GET"
    assert asked[0].path == "/v1/models"


def test_anthropic_is_told_the_version_and_extra_headers_are_sent():
    _, asked = check(lambda _: (200, LIST), npm="@ai-sdk/anthropic", headers={"X-Team": "blue"})
    assert asked[0].headers["anthropic-version"] == "2023-06-01"
    assert asked[0].headers["x-team"] == "blue"


def test_a_list_that_anyone_gets_proves_nothing():
    test, _ = check(lambda _: (200, LIST))
    assert test.result == "unclear"
    assert "--prompt" in test.hint


def test_a_server_without_keys_is_ok_when_it_lists():
    test, asked = check(lambda _: (200, {"models": [{"name": "m"}]}), secret=Secret(""))
    assert test.result == "ok"
    assert "authorization" not in asked[0].headers


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        ((401, {"error": {"message": "Incorrect API key provided"}}), "wrong-key"),
        (
            (400, {"error": {"message": "API key not valid.", "status": "INVALID_ARGUMENT"}}),
            "wrong-key",
        ),
        ((400, {"code": "invalid", "error": "Incorrect API key provided: sk***f"}), "wrong-key"),
        ((403, {"error": {"message": "forbidden"}}), "wrong-key"),
        ((403, {"error": {"message": "Missing scopes: api.model.read"}}), "unclear"),
        ((403, "<html>Blocked by a firewall</html>"), "unclear"),
        ((402, {"error": {"message": "Insufficient Balance"}}), "no-credit"),
        ((429, {"error": {"code": "insufficient_quota", "message": "quota"}}), "no-credit"),
        ((400, {"error": {"message": "Your credit balance is too low"}}), "no-credit"),
        ((403, {"error": "Your team doesn't have any credits yet."}), "no-credit"),
        ((429, {"error": {"message": "slow down"}}), "unclear"),
        ((500, {"error": {"message": "oops"}}), "unclear"),
        ((404, "not here"), "wrong-base-url"),
        ((200, "<html>welcome</html>"), "wrong-base-url"),
        ((200, {"hello": "world"}), "wrong-base-url"),
        ((302, ""), "wrong-base-url"),
        ((407, ""), "no-network"),
    ],
)
def test_what_the_provider_says_is_told_apart(answer, result):
    test, _ = check(lambda _: answer)
    assert test.result == result


def test_a_redirect_is_named_and_not_followed():
    test, asked = check(lambda _: (302, ""))
    assert "elsewhere.example" in test.detail
    assert "next" not in test.detail
    assert len(asked) == 1


def test_without_a_list_an_empty_request_proves_the_key():
    """Some providers list no models: 400 with the key and 401 without it is proof enough."""

    def answer(asked):
        if asked.path.endswith("/models"):
            return 404, {"error": "no such route"}
        if "authorization" not in asked.headers:
            return NO_KEY
        return 400, {"error": {"message": "model is required"}}

    test, asked = check(answer)
    assert test.result == "ok"
    assert [request.body for request in asked if request.method == "POST"] == [{}, {}]


def test_without_a_list_a_wrong_key_is_still_found():
    test, _ = check(lambda asked: (404, "") if asked.method == "GET" else NO_KEY)
    assert test.result == "wrong-key"


@pytest.mark.parametrize(
    ("facts", "path", "model_at"),
    [
        ({}, "/v1/chat/completions", "model"),
        ({"npm": "@ai-sdk/openai"}, "/v1/responses", "model"),
        ({"npm": "@ai-sdk/anthropic"}, "/v1/messages", "model"),
        ({"npm": "@ai-sdk/google"}, "/v1/models/m1:generateContent", None),
    ],
)
def test_a_prompt_is_one_tiny_request_in_the_wire_format(facts, path, model_at):
    test, asked = check(lambda _: (200, {"answer": "OK"}), prompt_model="m1", **facts)
    assert (test.result, test.detail) == ("ok", "m1 answered a prompt")
    assert [request.path for request in asked] == [path]
    if model_at is not None:
        assert asked[0].body[model_at] == "m1"
    assert "16" in str(asked[0].body)


def test_a_format_served_below_another_address_is_asked_there():
    with provider_stub(lambda _: (200, {"answer": "OK"})) as stub:
        elsewhere = stub.base_url.replace("/v1", "/anthropic/v1")
        row = stub.row(npm="@ai-sdk/anthropic", wire_bases={"anthropic": elsewhere})
        testing.test_key(row, KEY, prompt_model="m1")
    assert [request.path for request in stub.asked] == ["/anthropic/v1/messages"]


def test_the_key_never_comes_back_in_a_verdict():
    """Providers repeat a wrong key, whole or masked in the middle."""
    key = KEY.reveal()
    for text in (f"bad key {key}", f"bad key {key[:8]}***{key[-4:]}", f"bad key '{key}'."):
        test, _ = check(lambda _, text=text: (401, {"error": {"message": text}}))
        assert key[:8] not in test.detail
        assert key[-8:] not in test.detail
        assert "bad key ****" in test.detail


def test_a_text_that_cannot_be_a_header_is_never_sent():
    test, asked = check(lambda _: (200, LIST), secret=Secret("sk-0123\n456789"))
    assert test.result == "wrong-key"
    assert asked == []


def test_a_port_where_nobody_listens_is_a_wrong_address():
    with provider_stub(lambda _: (200, LIST)) as stub:
        row = stub.row()
    assert testing.test_key(row, KEY).result == "wrong-base-url"


@pytest.mark.parametrize(("online", "result"), [(True, "wrong-base-url"), (False, "no-network")])
def test_an_unknown_host_and_a_dead_network_are_told_apart(online, result, monkeypatch):
    def no_such_name(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with provider_stub(lambda _: (200, LIST)) as stub:
        row = stub.row(base_url="http://api.example.invalid/v1")
    assert testing.test_key(row, KEY, is_online=lambda: online).result == result


def test_a_server_that_does_not_speak_http_is_a_wrong_address():
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def babble():
            connection, _ = server.accept()
            connection.sendall(b"220 mail.example ESMTP\r\n")
            connection.close()

        thread = threading.Thread(target=babble)
        thread.start()
        with provider_stub(lambda _: (200, LIST)) as stub:
            row = stub.row(base_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        assert testing.test_key(row, KEY).result == "wrong-base-url"
        thread.join()


def test_a_server_that_never_answers_is_no_network(monkeypatch):
    monkeypatch.setattr(testing, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, provider_stub(lambda _: NO_KEY) as stub:
        row = stub.row(base_url=f"http://127.0.0.1:{server.getsockname()[1]}")
        assert testing.test_key(row, KEY).result == "no-network"


def test_a_provider_without_an_address_is_not_called():
    with provider_stub(lambda _: (200, LIST)) as stub:
        row = stub.row(base_url=None)
    assert testing.test_key(row, KEY).result == "wrong-base-url"


def test_loopback_is_never_proxied(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    test, _ = check(with_key("authorization", f"Bearer {KEY.reveal()}", (200, LIST)))
    assert test.result == "ok"


def test_a_dead_proxy_is_no_network(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with provider_stub(lambda _: (200, LIST)) as stub:
        row = stub.row(base_url="http://api.example.invalid/v1")
    assert testing.test_key(row, KEY, is_online=lambda: True).result == "no-network"


def test_the_call_goes_the_way_the_gateway_goes(monkeypatch):
    """Through the proxy, with its user and password."""
    with provider_stub(lambda _: (200, LIST)) as stub:
        monkeypatch.setenv("HTTP_PROXY", f"http://ada:p%40ss@127.0.0.1:{stub.port}")
        row = stub.row(base_url="http://api.example.invalid/v1")
        testing.test_key(row, KEY)
        assert stub.asked[0].path == "http://api.example.invalid/v1/models"
        assert stub.asked[0].headers["proxy-authorization"] == "Basic YWRhOnBAc3M="


def test_a_proxy_that_cannot_be_used_is_not_gone_around(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    with provider_stub(lambda _: (200, LIST)) as stub:
        test = testing.test_key(stub.row(base_url="http://api.example.invalid/v1"), KEY)
    assert test.result == "no-network"
    assert "socks5" in test.detail


def test_a_certificate_file_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    with provider_stub(lambda _: (200, LIST)) as stub:
        test = testing.test_key(stub.row(base_url="https://127.0.0.1:1/v1"), KEY)
    assert test.result == "unclear"
    assert "SSL_CERT_FILE" in test.detail
