"""Another model put in the place of the one a request asks for.

The invariant: only the model's name changes, in the body and wherever Gemini and Azure have it in
the path; and the models a router might take instead go with it.
"""

from urllib.parse import quote, unquote

import msgspec

from opencode_gate.wire.routes import Route
from opencode_gate.wire.splice import Change, members, with_changes, with_member

_MODELS = "/models/"
_DEPLOYMENTS = "/deployments/"
_RESOURCE = b'"models/'
_PATH_SAFE = "/:@!$&'()*+,;=-._~"


def with_model(route: Route, path: bytes, body: bytes, model: str) -> tuple[bytes, bytes]:
    """Path and body of a request that asks for `model` instead.

    Args:
        path: percent-encoded, without a query.
        body: a JSON object, as `read_facts` has found it.
    """
    start = body.index(b"{")
    changes = []
    is_named = False
    for member in members(body, start):
        if member.name == "model":
            is_named = True
            # Gemini's own form in a body is `models/<id>`.
            prefix = "models/" if body.startswith(_RESOURCE, member.start) else ""
            name = _string(prefix + model if route.model is not None else model)
            changes.append(Change(member.start, member.end, name))
        elif member.name == "models":
            changes.append(Change(member.start, member.end, b"[%s]" % _string(model)))
    changed = with_changes(body, changes)
    if route.model is not None:
        return _with_model_in_path(path, model), changed
    if route.deployment is not None:
        path = _with_deployment(path, model)
    return path, changed if is_named else with_member(changed, start, b'"model":' + _string(model))


def _with_model_in_path(path: bytes, model: str) -> bytes:
    """`…/models/{model}:{verb}`; an encoded spelling is seen as `identify` sees it."""
    resource, _, verb = unquote(path.decode("latin-1")).rpartition(":")
    base, _, _ = resource.rpartition(_MODELS)
    return f"{_quoted(base)}{_MODELS}{quote(model, safe='/-._~')}:{_quoted(verb)}".encode()


def _with_deployment(path: bytes, model: str) -> bytes:
    """`…/deployments/{model}/{operation}`, encoded or not as `identify` sees it."""
    base, _, rest = unquote(path.decode("latin-1")).rpartition(_DEPLOYMENTS)
    _, _, operation = rest.partition("/")
    return f"{_quoted(base)}{_DEPLOYMENTS}{quote(model, safe='-._~')}/{_quoted(operation)}".encode()


def _quoted(text: str) -> str:
    return quote(text, safe=_PATH_SAFE)


def _string(text: str) -> bytes:
    return msgspec.json.encode(text)
