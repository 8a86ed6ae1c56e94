"""`ogate serve`: who gets in, what launchers are told, and every way it can end."""

import os
import signal
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from opencode_gate.config.paths import paths
from opencode_gate.config.tls import provider_context
from opencode_gate.core.ids import new_ulid
from opencode_gate.core.semconv import ExchangeStatus
from opencode_gate.governance.policy import ModelRules
from opencode_gate.ledger.sqlite import open_store
from tests.support.child_processes import hang_ups_ignored
from tests.support.scripted_upstream import certificates
from tests.support.scripted_upstream_thread import ThreadedUpstream
from tests.support.served_gateway import (
    change_key,
    free_port,
    not_served,
    put_key,
    recorded,
    running_sessions,
    served,
    until,
)


def test_a_virtual_key_is_required_and_written_down(tmp_path: Path, ada: str) -> None:
    """Nobody gets in without; with one the exchange bears its name."""
    with served(tmp_path) as gateway:
        assert gateway.chat("sk-of-theirs").code == "unknown-virtual-key"
        assert gateway.ask("GET", "/p/practice/v1/models").status == 401
        assert gateway.chat(ada).status == 200
        assert gateway.stop() == 0
    (record,) = recorded()
    assert record.virtual_key == "ada"
    store = open_store(paths().ledger_file)
    session = store.session(record.session_id)
    store.close()
    assert session.agent == "serve"
    assert session.ended_at_us is not None


def test_switching_a_key_off_acts_on_the_next_request(tmp_path: Path, ada: str) -> None:
    """Also for sessions it has opened, while others go on."""
    bob = put_key("bob")
    with served(tmp_path) as gateway:
        _, token = gateway.open_session(ada)
        assert gateway.chat(token).status == gateway.chat(ada).status == 200
        change_key("ada", active=False)
        assert gateway.chat(token).code == gateway.chat(ada).code == "virtual-key-disabled"
        assert gateway.chat(bob).status == 200
        change_key("ada", active=True)
        assert gateway.chat(token).status == 200
        cy = put_key("cy")
        assert gateway.chat(cy).status == 200


def test_a_session_is_opened_accounted_for_and_ended(tmp_path: Path, ada: str) -> None:
    """Its exchanges come back at its end, and its token is worth nothing from then on."""
    with served(tmp_path) as gateway:
        gateway.chat(ada)
        session_id, token = gateway.open_session(ada, branch="main", time_zone="No/Where")
        gateway.chat(token)
        gateway.chat(token)
        ended = gateway.ask("POST", "/ogate/v1/session/end", token, {"exit_status": 3})
        account = ended.document
        assert [one["session_id"] for one in account["exchanges"]] == [session_id] * 2
        assert account["session"]["exit_status"] == 3
        assert account["session"]["branch"] == "main"
        assert account["session"]["time_zone"] == "UTC"
        assert gateway.chat(token).code == "unknown-virtual-key"
        again = gateway.ask("POST", "/ogate/v1/session/end", token, {"exit_status": 0})
        assert again.status == 401


def test_what_runs_at_the_gateway_is_seen_at_the_gateway(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """`ogate top` there shows the sessions that others have begun, with what is in flight."""
    with served(tmp_path) as gateway:
        session_id, token = gateway.open_session(ada)
        stream = gateway.stream(token, "acme")
        running = running_sessions()
        stream.close()
    assert session_id in [one["session"]["id"] for one in running if one["in_flight"]]


def test_nobody_takes_anothers_session(tmp_path: Path, ada: str) -> None:
    """An id is taken once, and only a key opens a session."""
    bob = put_key("bob")
    with served(tmp_path) as gateway:
        session_id, token = gateway.open_session(ada)
        wish = {"user": "b", "agent": "opencode", "directory": "/", "project": "p"}
        ways = (
            (bob, {**wish, "id": session_id}),
            (bob, {**wish, "id": "last"}),
            (bob, {**wish, "id": "' OR 1=1 --"}),
            (token, {**wish, "id": new_ulid()}),
            (bob, {**wish, "id": new_ulid(), "budget_usd": -1}),
            (bob, {"id": new_ulid()}),
            (bob, [1]),
            (bob, {**wish, "id": new_ulid(), "project": "x" * 100_000}),
        )
        for key, body in ways:
            assert gateway.ask("POST", "/ogate/v1/sessions", key, body).status == 400
        assert gateway.ask("POST", "/ogate/v1/session/end", ada, {}).status == 400
        assert gateway.ask("GET", "/ogate/v1/nothing", ada).status == 404
        assert gateway.ask("GET", "/ogate/v1/offer").status == 401
        assert gateway.ask("GET", "/health").document == {"status": "ok"}


def test_the_offer_names_no_address_and_no_credential(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """What launchers need, and nothing of where the requests go on to."""
    with served(tmp_path, OPENAI_API_KEY="sk-live-of-the-team") as gateway:
        answer = gateway.ask("GET", "/ogate/v1/offer", ada)
    offered = {one["row"]["id"]: one for one in answer.document["providers"]}
    assert {"acme", "openai", "practice"} <= offered.keys()
    assert offered["acme"]["models"].keys() == {"m"}
    assert offered["acme"]["row"]["base_url"].endswith(".invalid/v1")
    assert str(endless.port).encode() not in answer.body
    assert b"sk-live" not in answer.body


def test_a_key_is_offered_only_what_it_may_use(tmp_path: Path, endless: ThreadedUpstream) -> None:
    """Providers of which every model is denied are not shown in its Opencode."""
    only = put_key("only", models=ModelRules(allow=("acme/*",)))
    never = put_key("never", models=ModelRules(deny=("acme/*",)))
    shadow = put_key("shadow", models=ModelRules(deny=("acme/*",), mode="shadow"))
    found = {}
    with served(tmp_path) as gateway:
        for key in (only, never, shadow):
            offer = gateway.ask("GET", "/ogate/v1/offer", key).document
            found[key] = {one["row"]["id"] for one in offer["providers"]}
    assert found[only] == {"acme"}
    assert found[never] == found[shadow] - {"acme"} != found[shadow]


def test_a_sessions_own_budget_is_written_with_it(tmp_path: Path, ada: str) -> None:
    """A launcher may cap its own session."""
    with served(tmp_path) as gateway:
        session_id, _ = gateway.open_session(ada, budget_usd="5")
    from opencode_gate.ledger.sqlite.governance import open_governance

    governance = open_governance(paths().ledger_file)
    found = [one for one in governance.policy()[1] if one.kind == "session"]
    governance.close()
    assert [(one.name, '"usd":"5"' in (one.text or "")) for one in found] == [(session_id, True)]


def test_sigterm_lets_a_running_answer_end_and_takes_no_new_one(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """The answer is whole, and so is its record."""
    with served(tmp_path) as gateway:
        stream = gateway.stream(ada, "acme")
        gateway.process.send_signal(signal.SIGTERM)
        until(gateway.refuses)
        endless.release.set()
        assert b"[DONE]" in stream.read()
        assert gateway.process.wait(30) == 0
    assert "ogate · answers that run have 30 s to end; a second signal cuts them" in gateway.said
    (record,) = recorded()
    assert record.status is ExchangeStatus.COMPLETED
    assert record.usage.output == 3


def test_a_second_signal_does_not_wait(tmp_path: Path, ada: str, endless: ThreadedUpstream) -> None:
    """The answer is cut, and what was seen of it is written down."""
    with served(tmp_path) as gateway:
        stream = gateway.stream(ada, "acme")
        gateway.process.send_signal(signal.SIGTERM)
        until(gateway.refuses)
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(20) == 0
        stream.close()
    (record,) = recorded()
    assert record.status is ExchangeStatus.INTERRUPTED


def test_the_grace_ends(tmp_path: Path, ada: str, endless: ThreadedUpstream) -> None:
    """An answer that never ends does not keep a server up."""
    with served(tmp_path, "--grace", "0.2") as gateway:
        stream = gateway.stream(ada, "acme")
        assert gateway.stop() == 0
        stream.close()
    assert [record.status for record in recorded()] == [ExchangeStatus.INTERRUPTED]


def test_a_hang_up_that_is_ignored_stays_ignored(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """As `nohup` asks for: it counts neither as the first signal nor as the second."""
    with hang_ups_ignored(), served(tmp_path) as gateway:
        stream = gateway.stream(ada, "acme")
        gateway.process.send_signal(signal.SIGHUP)
        assert gateway.chat(ada).status == 200
        gateway.process.send_signal(signal.SIGTERM)
        until(gateway.refuses)
        gateway.process.send_signal(signal.SIGHUP)
        endless.release.set()
        assert b"[DONE]" in stream.read()
        assert gateway.process.wait(30) == 0


def test_sigkill_loses_nothing_and_sessions_go_on_after_it(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """The next start folds what the journal has; tokens of sessions are still good."""
    port = free_port()
    with served(tmp_path, port=port) as gateway:
        session_id, token = gateway.open_session(ada)
        for _ in range(5):
            assert gateway.chat(token).status == 200
        stream = gateway.stream(token, "acme")
        gateway.kill()
        stream.close()
    with served(tmp_path, port=port) as gateway:
        assert gateway.chat(token).status == 200
        ended = gateway.ask("POST", "/ogate/v1/session/end", token, {"exit_status": 0}).document
        assert [one["session_id"] for one in ended["exchanges"]] == [session_id] * 7
        statuses = [one["status"] for one in ended["exchanges"]]
        assert sorted(statuses) == ["completed"] * 6 + ["interrupted"]
        gateway.stop()


def test_it_serves_from_a_folder_whose_name_is_no_unicode(tmp_path: Path, ada: str) -> None:
    """Older systems have such folders; what can be shown of it stands in the ledger."""
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    with served(folder) as gateway:
        assert gateway.chat(ada).status == 200
        assert gateway.stop() == 0
    [record] = recorded()
    store = open_store(paths().ledger_file)
    assert store.session(record.session_id).directory == str(tmp_path / "caf\ufffd")
    store.close()


def test_a_gateway_process_that_dies_is_replaced_behind_the_same_port(
    tmp_path: Path, ada: str
) -> None:
    """Clients meet a door that is still there, and their sessions too."""
    with served(tmp_path) as gateway:
        _, token = gateway.open_session(ada)
        assert gateway.chat(token).status == 200
        first = gateway.inner
        os.kill(first, signal.SIGKILL)
        assert gateway.chat(token).status == 200
        assert gateway.inner != first
        assert gateway.stop() == 0
    assert len(recorded()) == 2


def test_it_goes_on_though_nobody_reads_what_it_says(tmp_path: Path, ada: str) -> None:
    """`ogate serve 2>&1 | head`, or a terminal that is gone: deaths are mended all the same."""
    with served(tmp_path) as gateway:
        assert gateway.process.stderr is not None
        with open(os.devnull) as nothing:
            # What is read at this moment is the last that is.
            os.dup2(nothing.fileno(), gateway.process.stderr.fileno())
        for _ in range(3):
            dying = gateway.inner
            os.kill(dying, signal.SIGKILL)
            until(lambda: gateway.workers not in ([], [dying]))  # noqa: B023
            assert gateway.chat(ada).status == 200
        assert gateway.stop() == 0
    assert len(recorded()) == 3


def test_when_its_parent_dies_the_gateway_lets_answers_end_and_goes(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """The port is free at once for the next one; the answer is not cut."""
    port = free_port()
    with served(tmp_path, port=port) as gateway:
        stream = gateway.stream(ada, "acme")
        inner = gateway.inner
        gateway.process.kill()
        gateway.process.wait()
        until(gateway.refuses)
        with served(tmp_path, port=port) as successor:
            assert successor.chat(ada).status == 200
            endless.release.set()
            assert b"[DONE]" in stream.read()
            until(lambda: not Path(f"/proc/{inner}").exists())
            successor.stop()
    assert sorted(record.status for record in recorded()) == ["completed", "completed"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:4141", 200),
        ("192.0.2.7:4141", 200),
        ("[2001:db8::1]:4141", 200),
        ("gate.example", 200),
        ("GATE.example:443", 200),
        ("evil.example", 403),
        ("gate.example.evil.example", 403),
        ("", 403),
    ],
)
def test_only_its_own_names_and_addresses_are_answered(
    tmp_path: Path, ada: str, host: str, status: int
) -> None:
    """A page whose name resolves to the gateway reaches nothing."""
    with served(tmp_path, "--name", "gate.example") as gateway:
        assert gateway.ask("GET", "/ogate/v1/offer", ada, None, {"host": host}).status == status


def test_a_web_page_is_kept_out(tmp_path: Path, ada: str) -> None:
    """Whatever name it came by."""
    with served(tmp_path) as gateway:
        origin = {"origin": "https://page.example"}
        assert gateway.ask("GET", "/ogate/v1/offer", ada, None, origin).status == 403


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--host", "0.0.0.0"), "insecure-address"),
        (("--host", "::"), "insecure-address"),
        (("--host", "192.0.2.1"), "insecure-address"),
        (("--tls-cert", "chain.pem"), "usage"),
        (("--port", "70000"), "usage"),
        (("--grace", "inf"), "usage"),
        (("--grace", "nan"), "usage"),
        (("--grace", "-1"), "usage"),
        (("--tls-cert", "no.pem", "--tls-key", "no.pem"), "usage"),
    ],
)
def test_what_would_not_be_safe_or_makes_no_sense_does_not_start(
    tmp_path: Path, arguments: tuple[str, ...], code: str
) -> None:
    """Nothing listens, and the error says what to add."""
    done = not_served(tmp_path, *arguments)
    assert done.returncode == 2
    assert f"[{code}]" in done.stderr
    assert "Errno" not in done.stderr
    assert done.stdout == ""


def test_without_a_virtual_key_it_says_which_command_makes_one(tmp_path: Path) -> None:
    """It serves all the same: a key that is made later works at once."""
    with served(tmp_path) as gateway:
        assert any("ogate vkeys create" in line for line in gateway.said)
        assert gateway.chat(put_key("late")).status == 200


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """In words, with what to do."""
    with served(tmp_path) as gateway:
        done = not_served(tmp_path, "--port", str(gateway.port))
    assert done.returncode == 5
    assert "cannot listen" in done.stderr


def test_a_key_with_a_password_is_said_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    """Nobody could type it: the gateway process hears its launcher where a terminal would be."""
    own = certificates(tmp_path, "127.0.0.1").server_file
    locked = tmp_path / "locked.pem"
    locked.write_bytes(
        load_pem_private_key(own.read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    files = ("--tls-cert", str(own), "--tls-key", str(locked))
    done = not_served(tmp_path, "--port", "0", *files)
    assert done.returncode == 5
    assert "cannot be used for TLS" in done.stderr
    assert "hint: give a chain with --tls-cert and its key, without a password" in done.stderr
    assert done.stderr.count("[gateway-failed]") == 1
    assert "pass phrase" not in done.stderr


def test_a_round_trip_over_tls_with_an_authority_of_ones_own(
    tmp_path: Path, ada: str, endless: ThreadedUpstream
) -> None:
    """Plain answers, streams and the control interface; plain HTTP gets nothing."""
    own = certificates(tmp_path, "127.0.0.1", "gate.example")
    trusting = provider_context({"SSL_CERT_FILE": str(own.authority_file)})
    arguments = ("--tls-cert", str(own.server_file), "--tls-key", str(own.server_file))
    with served(tmp_path, *arguments, tls=trusting) as gateway:
        assert gateway.scheme == "https"
        assert gateway.chat(ada).status == 200
        host = {"host": "gate.example"}
        assert gateway.ask("GET", "/ogate/v1/offer", ada, None, host).status == 200
        stream = gateway.stream(ada, "acme")
        endless.release.set()
        assert b"[DONE]" in stream.read()
        gateway.tls = None
        with pytest.raises(OSError):
            gateway.chat(ada)
        assert gateway.stop() == 0
    assert len(recorded()) == 2
