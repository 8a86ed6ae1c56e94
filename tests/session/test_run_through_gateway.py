"""`ogate run --gateway` with a stand-in for Opencode: token, account, and what can go wrong."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from opencode_gate.cli.remote import open_gateway
from opencode_gate.config.paths import paths
from opencode_gate.core.errors import CredentialError
from opencode_gate.governance.policy import Budget
from opencode_gate.governance.virtual_keys import new_virtual_key
from opencode_gate.ledger.sqlite import open_store
from opencode_gate.session.remote_gateway import gateway_address
from tests.support.launcher import run, started
from tests.support.scripted_upstream import certificates
from tests.support.scripted_upstream_thread import threaded_upstream
from tests.support.served_gateway import change_key, put_key, served

PRACTICE = ("--provider", "practice", "--model", "scripted", "--no-input")


def _client(tmp_path: Path) -> dict[str, str]:
    """Another machine's environment: its own home, nothing of the server's."""
    return {"OGATE_HOME": str(tmp_path / "client")}


def test_opencode_has_the_sessions_token_alone_and_the_account_is_the_gateways(
    tmp_path: Path,
) -> None:
    """The virtual key is nowhere in what Opencode is given; the record is at the gateway."""
    key = put_key("ada")
    client = {**_client(tmp_path), "OGATE_KEY": key}
    with served(tmp_path) as gateway:
        there = ("run", "--gateway", gateway.url, *PRACTICE)
        dumped = run(tmp_path, *there, "--", "run", "dump", **client)
        assert dumped.returncode == 0, dumped.stderr
        done = run(tmp_path, *there, "--summary", "json", "--", "run", "ask", **client)
        assert done.returncode == 0, done.stderr
    environ = json.loads(dumped.stdout)["environ"]
    assert environ["OGATE_KEY"].startswith("ogs-")
    assert key not in dumped.stdout
    config = json.loads(environ["OPENCODE_CONFIG_CONTENT"])
    base_url = config["provider"]["practice"]["options"]["baseURL"]
    assert base_url == f"{gateway.url}/p/practice/v1"
    account = json.loads(done.stderr[done.stderr.index("{") :])
    assert account["totals"]["requests"] == 1
    store = open_store(paths().ledger_file)
    session = store.session(account["session"]["id"])
    (record,) = store.exchanges(session.id)
    store.close()
    assert (record.virtual_key, session.exit_status) == ("ada", 0)
    assert session.project == "project"
    assert not (tmp_path / "client/data/ledger.db").exists()
    assert list((tmp_path / "client/run").iterdir()) == []


def test_a_dry_run_shows_the_gateways_address_and_opens_no_session(tmp_path: Path) -> None:
    """And neither does it start anything."""
    client = {**_client(tmp_path), "OGATE_KEY": put_key("ada")}
    with served(tmp_path) as gateway:
        done = run(tmp_path, "run", "--gateway", gateway.url, *PRACTICE, "--dry-run", **client)
        assert gateway.stop() == 0
    assert done.returncode == 0, done.stderr
    assert f"{gateway.url}/p/practice/v1" in done.stdout
    store = open_store(paths().ledger_file)
    assert [session.agent for session in store.sessions()] == ["serve"]
    store.close()


def test_a_key_that_is_typed_is_kept_once_the_gateway_has_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for once; a wrong one is not kept."""
    typed = [new_virtual_key().token, put_key("ada")]
    monkeypatch.setattr("opencode_gate.cli.prompts.ask_hidden", lambda _: typed.pop(0))
    with served(tmp_path) as gateway:
        address = gateway_address(gateway.url, is_insecure=False)
        with pytest.raises(CredentialError) as refused:
            open_gateway(address, paths(), can_ask=True)
        assert refused.value.code == "unknown-virtual-key"
        assert "practice" in open_gateway(address, paths(), can_ask=True).routed()
        assert typed == []
        assert "practice" in open_gateway(address, paths(), can_ask=False).routed()


def test_the_gateway_may_be_a_setting_and_what_calls_no_model_asks_it_nothing(
    tmp_path: Path,
) -> None:
    """Then `ogate run` is enough, and `--gateway own` is one's own."""
    client = {**_client(tmp_path), "OGATE_RUN_GATEWAY": "http://127.0.0.1:9"}
    untouched = run(tmp_path, "run", "--", "models", **client)
    assert (untouched.returncode, untouched.stdout) == (0, "untouched models\n")
    assert "[missing-credential]" in run(tmp_path, "run", *PRACTICE, "--", "run", **client).stderr
    own = run(tmp_path, "run", "--gateway", "own", *PRACTICE, "--", "run", "ask", **client)
    assert own.returncode == 0, own.stderr
    assert (tmp_path / "client/data/ledger.db").exists()


def test_the_account_says_how_the_gateways_budgets_stand(tmp_path: Path) -> None:
    """The session's own, capped with `--budget`, and those of the key."""
    day = Budget(window="day", usd=Decimal(20))
    client = {**_client(tmp_path), "OGATE_KEY": put_key("ada", budgets=(day,))}
    with served(tmp_path) as gateway:
        there = ("run", "--gateway", gateway.url, *PRACTICE, "--budget", "5")
        done = run(tmp_path, *there, "--summary", "json", "--", "run", "ask", **client)
    assert done.returncode == 0, done.stderr
    account = json.loads(done.stderr[done.stderr.index("{") :])
    found = [(one["owner_kind"], one["owner"], one["window"]) for one in account["budgets"]]
    assert found == [
        ("session", account["session"]["id"], "session"),
        ("vkey", "ada", "day"),
    ]


def test_an_answer_that_was_cut_by_the_end_is_in_the_account(tmp_path: Path) -> None:
    """Opencode is ended in mid-answer; what the gateway had seen of it comes back."""
    client = {**_client(tmp_path), "OGATE_KEY": put_key("ada")}
    with threaded_upstream() as upstream:
        file = paths().config_file
        file.parent.mkdir(parents=True)
        file.write_text(
            f'[providers.acme]\nbase_url = "http://127.0.0.1:{upstream.port}/v1"\n'
            'wire = "openai-chat"\nkeyless = true\n[providers.acme.models.m]\n'
        )
        with served(tmp_path) as gateway:
            there = ("run", "--gateway", gateway.url, "--provider", "acme", "--model", "m")
            words = ("--no-input", "--summary", "json", "--", "run", "stream", "acme")
            with started(tmp_path, *there, *words, **client) as launcher:
                assert launcher.stdout is not None
                assert launcher.stdout.readline().startswith("pid ")
                assert launcher.stdout.readline() == "streaming\n"
                launcher.terminate()
                _, err = launcher.communicate(timeout=30)
            assert launcher.returncode == 143, err
    account = json.loads(err[err.index("{") :])
    assert account["totals"]["requests"] == 1
    assert account["session"]["exit_status"] == 143


def test_a_session_whose_key_is_switched_off_ends_with_the_reason(tmp_path: Path) -> None:
    """The refusal reaches Opencode; the next run is refused before Opencode starts."""
    key = put_key("ada")
    client = {**_client(tmp_path), "OGATE_KEY": key}
    with served(tmp_path) as gateway:
        change_key("ada", active=False)
        done = run(
            tmp_path, "run", "--gateway", gateway.url, *PRACTICE, "--", "run", "ask", **client
        )
    assert done.returncode == 125
    assert "[virtual-key-disabled]" in done.stderr
    assert ": virtual key ada is switched off" in done.stderr
    assert "keys remove" not in done.stderr


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://192.0.2.1:4141", "insecure-address"),
        ("http://gate.example", "insecure-address"),
        ("ftp://gate.example", "usage"),
        ("gate.example:4141", "usage"),
        ("https://user:secret@gate.example", "usage"),
        ("https://gate.example:99999", "usage"),
    ],
)
def test_an_address_that_is_none_or_not_safe_is_refused(
    tmp_path: Path, url: str, code: str
) -> None:
    """Before a key is looked for."""
    done = run(tmp_path, "run", "--gateway", url, *PRACTICE, "--", "run", "ask")
    assert done.returncode == 2
    assert f"[{code}]" in done.stderr
    assert "secret@" not in done.stderr


def test_without_a_key_or_a_gateway_it_says_what_to_do(tmp_path: Path) -> None:
    """One error each, before Opencode starts."""
    nobody = ("run", "--gateway", "http://127.0.0.1:9", *PRACTICE, "--", "run", "ask")
    assert "[missing-credential]" in run(tmp_path, *nobody).stderr
    unreachable = run(tmp_path, *nobody, OGATE_KEY=put_key("ada"))
    assert unreachable.returncode == 125
    assert "[gateway-unreachable]" in unreachable.stderr
    odd = run(tmp_path, *nobody, OGATE_KEY="ogk-typed-wrongly")
    assert "[bad-credential]" in odd.stderr


@pytest.mark.parametrize("option", [("--key", "work"), ("--vkey", "ada")])
def test_what_only_a_gateway_of_ones_own_does_is_refused(
    tmp_path: Path, option: tuple[str, str]
) -> None:
    """The keys are there, and the key of the session is the one it is opened with."""
    done = run(tmp_path, "run", "--gateway", "http://127.0.0.1:9", *option, *PRACTICE)
    assert done.returncode == 2
    assert option[0] in done.stderr


def test_a_gateway_that_is_gone_at_the_end_is_said_and_the_status_stays_the_agents(
    tmp_path: Path,
) -> None:
    """Its records are with it, and no figures are made up from this side alone."""
    key = put_key("ada")
    with served(tmp_path) as gateway:
        script = tmp_path / "kill.sh"
        kill = f"kill -9 {gateway.process.pid} {gateway.inner}"
        script.write_text(f'#!/bin/sh\n[ "$1" = run ] || exit 0\n{kill}\nexit 33\n')
        script.chmod(0o755)
        done = run(
            tmp_path,
            *("run", "--gateway", gateway.url, *PRACTICE, "--", "run", "x"),
            OGATE_RUN_AGENT_PATH=str(script),
            OGATE_KEY=key,
            **_client(tmp_path),
        )
    assert done.returncode == 33, done.stderr
    assert "the account is with the gateway" in done.stderr
    assert "ogate · session" not in done.stderr


def test_over_tls_the_authority_has_to_be_trusted(tmp_path: Path) -> None:
    """`SSL_CERT_FILE` names it, for the launcher and for Opencode."""
    own = certificates(tmp_path, "127.0.0.1")
    key = put_key("ada")
    file = str(own.server_file)
    client = {**_client(tmp_path), "OGATE_KEY": key}
    with served(tmp_path, "--tls-cert", file, "--tls-key", file) as gateway:
        there = ("run", "--gateway", gateway.url, *PRACTICE, "--", "run", "dump")
        refused = run(tmp_path, *there, **client)
        assert refused.returncode == 125
        assert "[gateway-unreachable]" in refused.stderr
        assert "hint: SSL_CERT_FILE=FILE names" in refused.stderr
        plain = gateway.url.replace("https", "http")
        mistyped = run(tmp_path, "run", "--gateway", plain, *PRACTICE, "--", "run", "x", **client)
        assert f"hint: it may speak TLS: {gateway.url}" in mistyped.stderr
        trusted = str(own.authority_file)
        done = run(tmp_path, *there, SSL_CERT_FILE=trusted, NODE_EXTRA_CA_CERTS="", **client)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["environ"]["NODE_EXTRA_CA_CERTS"] == trusted
