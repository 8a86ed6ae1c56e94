"""Another model is asked for, and nothing else of a request changes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencode_gate.core.semconv import WireFormat
from opencode_gate.wire.facts import read_facts
from opencode_gate.wire.model_swap import with_model
from opencode_gate.wire.routes import identify
from tests.support.json_bodies import bodies, encoded, without
from tests.support.wire_corpus import route_of

CHAT = route_of(WireFormat.OPENAI_CHAT)
PATH = b"/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"big","a":1}', '{"model":"small/é","a":1}'),
        ('{ "model" : "big" }', '{ "model" : "small/é" }'),
        ('{"model":"a","model":"b"}', '{"model":"small/é","model":"small/é"}'),
        ('{"messages":[{"model":"big"}]}', '{"model":"small/é","messages":[{"model":"big"}]}'),
        ('{"m\\u006fdel":"big"}', '{"m\\u006fdel":"small/é"}'),
        ('{"model":"big","models":["x","y"]}', '{"model":"small/é","models":["small/é"]}'),
        ("{}", '{"model":"small/é"}'),
    ],
)
def test_the_model_is_swapped_where_it_stands(body, expected):
    path, swapped = with_model(CHAT, PATH, body.encode(), "small/é")
    assert (path, swapped.decode()) == (PATH, expected)


@given(body=bodies(st.sampled_from(["x"])), style=encoded, model=st.text(min_size=1))
def test_any_body_asks_for_the_other_model_and_is_else_the_same(body, style, model):
    try:
        model.encode()
    except UnicodeEncodeError:
        return
    original = style({**body, "model": "big"})
    _, swapped = with_model(CHAT, PATH, original, model)
    assert read_facts(CHAT, swapped).request_model == model
    names = ("model", "models")
    assert without(json.loads(swapped), names) == without(json.loads(original), names)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        ),
        (
            "/v1beta/models/gemini-2.5-pro%3AstreamGenerateContent",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        ),
        (
            "/v1/projects/p%20q/models/x/y:generateContent/",
            "/v1/projects/p%20q/models/gemini-2.5-flash:generateContent/",
        ),
    ],
)
def test_geminis_model_is_swapped_in_the_path(path, expected):
    body = b'{"contents":[],"model":"models/gemini-2.5-pro"}'
    swapped = with_model(identify("POST", path), path.encode(), body, "gemini-2.5-flash")
    assert swapped == (expected.encode(), body.replace(b"pro", b"flash"))
    assert identify("POST", swapped[0].decode()).model == "gemini-2.5-flash"


@given(model=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_in_a_path_is_read_as_itself(model):
    path = "/v1beta/models/m:generateContent"
    swapped, body = with_model(identify("POST", path), path.encode(), b"{}", model)
    assert body == b"{}"
    assert swapped.isascii()
    found = identify("POST", swapped.decode()).model
    assert found == model or "/models/" in f"/models/{model}"[1:]


@pytest.mark.parametrize(
    "path",
    [
        b"/openai/deployments/dear/chat/completions",
        b"/openai%2Fdeployments/d%65ar/chat/completions",
    ],
)
def test_azures_deployment_is_swapped_in_the_path_too(path):
    """Azure goes by the path, whatever model the body names."""
    body = b'{"model":"dear","service_tier":"flex","models":["other"],"messages":[]}'
    route = identify("POST", path.decode())
    assert read_facts(route, body).fallback_models == ("other", "dear")
    path, body = with_model(route, path, body, "cheap")
    assert path == b"/openai/deployments/cheap/chat/completions"
    facts = read_facts(identify("POST", path.decode()), body)
    assert (facts.request_model, facts.fallback_models) == ("cheap", ("cheap", "cheap"))
