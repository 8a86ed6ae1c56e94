"""`ogate keys`: what each verb does, what it says, and what it never shows."""

import io
import json
import os
import sys

import keyring
import keyring.backends.fail
import pexpect
import pytest

from opencode_gate.cli import key_entry, prompts
from opencode_gate.cli.commands import keys
from opencode_gate.cli.main import main
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import load_settings
from opencode_gate.core.secrets import Secret
from opencode_gate.credentials.vault import Vault
from opencode_gate.credentials.verdicts import KeyTest
from tests.support.memory_keyring import MemoryKeyring
from tests.support.provider_stub import provider_stub

KEY = "sk-test-0123456789abcdef"
OTHER = "sk-test-fedcba9876543210"


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    """Every verb meets this keyring instead of the machine's."""
    memory = MemoryKeyring()
    monkeypatch.setattr(keyring.core, "_keyring_backend", memory)
    return memory


@pytest.fixture
def no_keyring(monkeypatch):
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a line; checks every time that neither key is in what it printed."""

    def run_line(line, *, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = main(line.split())
        captured = capsys.readouterr()
        for secret in (KEY, OTHER):
            assert secret not in captured.out + captured.err
            assert secret[:-4] not in captured.out + captured.err
        return status, captured.out, captured.err

    return run_line


@pytest.fixture
def person(monkeypatch):
    """Answers questions from a list, as at a terminal."""
    answers: list[str] = []
    questions: list[str] = []

    def answer(question):
        questions.append(question)
        return answers.pop(0)

    monkeypatch.setattr(keys, "may_ask", lambda no_input=False: not no_input)
    monkeypatch.setattr(prompts, "ask_text", answer)
    monkeypatch.setattr(prompts, "ask_hidden", answer)
    answers_and_questions = (answers, questions)
    return answers_and_questions


def entries(provider_id=None):
    return Vault(paths(), {}).index.entries(provider_id)


def stored():
    vault = Vault(paths(), os.environ)
    return {f"{e.provider_id}/{e.name}": vault.secret(e).reveal() for e in vault.index.entries()}


def test_a_key_from_stdin_goes_into_the_keyring(run, backend):
    status, out, _ = run("keys add openai --stdin", stdin=KEY + "\n")
    assert (status, out.strip()) == (
        0,
        "openai/default (…cdef) is in the OS keyring, used by default",
    )
    assert backend.passwords == {("ogate", "openai/default"): KEY}


def test_a_key_from_a_variable_is_copied(run, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    assert run("keys add openai --from-env MY_KEY --name work --default")[0] == 0
    monkeypatch.delenv("MY_KEY")
    assert stored() == {"openai/work": KEY}


def test_a_reference_keeps_the_name_alone(run, backend, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, out, _ = run("keys add openai --from-env OPENAI_API_KEY --reference")
    assert (status, out.strip()) == (
        0,
        "openai/default is what OPENAI_API_KEY holds, used by default",
    )
    assert backend.passwords == {}
    assert KEY.encode() not in paths().credentials_index.read_bytes()


def test_a_reference_to_an_unset_variable_is_taken_with_a_note(run):
    status, _, err = run("keys add openai --from-env OPENAI_API_KEY --reference")
    assert status == 0
    assert "OPENAI_API_KEY is not set in this shell" in err


@pytest.mark.parametrize("tail", ["", " --reference"])
def test_a_key_where_a_variable_belongs_is_refused_and_not_repeated(run, tail):
    """The shell's history has it already; nothing of ours shall."""
    for text in (KEY, "AIzaSyD0123456789abcdef"):
        status, out, err = run(f"keys add openai --from-env {text}{tail}")
        assert status == 2
        assert text not in out + err
    assert entries() == ()


@pytest.mark.parametrize(
    "line",
    [
        f"add {KEY}",
        f"add anthropic {KEY}",
        f"add anthropic --stdin={KEY}",
        f"add anthropic --name {KEY} --stdin",
        f"rotate anthropic default {KEY}",
        f"test anthropic {KEY}",
        KEY,
        "add anthropic 0123456789abcdef-of-no-known-kind",
    ],
)
def test_a_key_on_the_line_is_refused_and_not_repeated(run, backend, line):
    """It is in the shell's history by then, which is said; in a log it need not be as well."""
    status, out, err = run(f"keys {line}", stdin=OTHER)
    assert (status, out) == (2, "")
    assert "never given on the command line" in err
    assert "of-no-known-kind" not in err
    assert backend.passwords == {}


def test_an_unset_variable_is_an_error_with_its_name(run):
    status, _, err = run("keys add openai --from-env MY_KEY")
    assert status == 4
    assert "MY_KEY is not set" in err
    assert "[missing-credential]" in err


@pytest.mark.parametrize(
    "flags",
    [
        "--stdin --from-env X",
        "--reference",
        "--reference --from-env X --store file",
        "--passphrase",
        "--passphrase --store keyring",
    ],
)
def test_flags_that_contradict_each_other_are_refused(run, flags):
    assert run(f"keys add openai {flags}")[0] == 2
    assert entries() == ()


def test_without_a_terminal_a_missing_key_names_the_flags(run):
    status, _, err = run("keys add openai")
    assert status == 2
    assert "[no-terminal]" in err
    assert "--stdin" in err and "--from-env" in err


def test_an_unknown_provider_comes_with_the_nearest(run):
    status, _, err = run("keys add opnai --stdin", stdin=KEY)
    assert status == 2
    assert "[unknown-provider]" in err
    assert "openai" in err


def test_the_practice_provider_takes_no_key(run):
    status, _, err = run("keys add practice --stdin", stdin=KEY)
    assert status == 2
    assert "needs no key" in err


def test_what_is_not_a_key_is_refused(run):
    for text in ("", "two words", "short"):
        status, _, err = run("keys add openai --stdin", stdin=text)
        assert status == 4
        assert "[bad-credential]" in err
    assert entries() == ()


def test_a_taken_name_is_refused_before_a_key_is_asked_for(run, person):
    run("keys add openai --stdin --no-test", stdin=KEY)
    status, _, err = run("keys add openai")
    assert status == 4
    assert "[key-exists]" in err
    assert person[1] == []


def test_a_key_of_another_provider_is_pointed_out(run):
    _, _, err = run("keys add openai --stdin --no-test", stdin="sk-ant-api03-0123456789")
    assert "looks like a key of anthropic" in err


def test_without_a_keyring_the_error_offers_what_works_here(run, no_keyring, monkeypatch):
    """The variable first where it is set, else the file with a key file."""
    status, _, err = run("keys add openai --stdin", stdin=KEY)
    assert status == 4
    assert "[no-keyring]" in err
    assert "hint: `ogate keys add openai --store file`" in err
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    _, _, err = run("keys add openai --stdin", stdin=KEY)
    assert "hint: `ogate keys add openai --from-env OPENAI_API_KEY --reference`" in err
    assert entries() == ()


def test_both_offers_work_as_they_are_printed(run, no_keyring, monkeypatch):
    assert run("keys add openai --store file --stdin", stdin=KEY)[0] == 0
    monkeypatch.setenv("GROQ_API_KEY", OTHER)
    assert run("keys add groq --from-env GROQ_API_KEY --reference")[0] == 0
    assert stored() == {"openai/default": KEY, "groq/default": OTHER}


def test_a_file_made_before_is_used_without_asking_again(run, no_keyring):
    run("keys add openai --store file --stdin", stdin=KEY)
    status, _, err = run("keys add groq --stdin", stdin=OTHER)
    assert status == 0
    assert "encrypted file" in err
    assert stored() == {"openai/default": KEY, "groq/default": OTHER}


def test_an_explicit_keyring_is_never_replaced(run, no_keyring):
    run("keys add openai --store file --stdin", stdin=KEY)
    status, _, err = run("keys add groq --store keyring --stdin", stdin=OTHER)
    assert status == 4
    assert "[no-keyring]" in err


@pytest.mark.parametrize(
    ("variable", "answers", "store", "variables"),
    [
        (None, ["1", KEY, "n"], "file", None),
        (None, ["2", KEY, "n", "long passphrase", "long passphrase"], "file", None),
        ("OPENAI_API_KEY", ["1"], "env", "OPENAI_API_KEY"),
        ("OPENAI_API_KEY", ["2", KEY, "n"], "file", None),
    ],
)
def test_without_a_keyring_a_person_chooses(
    run, no_keyring, person, monkeypatch, variable, answers, store, variables
):
    """The file with a key file comes first where no variable is set."""
    if variable is not None:
        monkeypatch.setenv(variable, KEY)
    person[0][:] = answers
    status, _, err = run("keys add openai")
    assert status == 0
    assert "no usable OS keyring" in err
    (entry,) = entries()
    assert (entry.store, entry.variable) == (store, variables)


def test_a_person_types_the_key_and_it_is_tested(run, person):
    with provider_stub(
        lambda asked: (
            (200, {"data": [{"id": "m"}]}) if "authorization" in asked.headers else (401, {})
        )
    ) as stub:
        run(f"config set providers.mine.base_url {stub.base_url}")
        run("config set providers.mine.wire openai-chat")
        person[0][:] = [KEY, "y"]
        status, _, err = run("keys add mine")
    assert status == 0, err
    assert "ok: 1 models listed" in err
    assert entries("mine")[0].last_test_result == "ok"


@pytest.mark.parametrize(("keep", "count"), [("n", 0), ("y", 1)])
def test_a_refused_key_is_kept_only_on_request(run, person, monkeypatch, keep, count):
    refused = KeyTest(result="wrong-key", detail="the provider refused the key (401)")
    monkeypatch.setattr("opencode_gate.credentials.testing.test_key", lambda *_, **__: refused)
    person[0][:] = [KEY, "y", keep]
    status, _, err = run("keys add openai")
    assert status == (0 if count else 4)
    assert "wrong-key" in err
    assert len(entries()) == count


def test_ctrl_c_at_any_question_leaves_nothing(run, monkeypatch):
    """130, no key, no list, no half-written settings."""
    for number in range(5):
        asked = []

        def leave(question, asked=asked, number=number):
            asked.append(question)
            if len(asked) > number:
                raise KeyboardInterrupt
            return "resource" if "AZURE" in question else KEY

        monkeypatch.setattr(keys, "may_ask", lambda no_input=False: True)
        monkeypatch.setattr(prompts, "ask_text", leave)
        monkeypatch.setattr(prompts, "ask_hidden", leave)
        if run("keys add azure")[0] != 130:
            break
        assert entries() == ()
        assert not paths().config_file.exists()
    assert number >= 2


def test_an_address_with_a_hole_is_filled_by_asking(run, person):
    answers, questions = person
    answers[:] = ["my-resource", KEY, "n"]
    assert run("keys add azure")[0] == 0
    assert "AZURE_RESOURCE_NAME" in questions[0]
    settings = load_settings(paths(), {})
    assert settings.providers["azure"].variables["AZURE_RESOURCE_NAME"] == "my-resource"


def test_an_address_with_a_hole_is_named_where_nobody_can_be_asked(run):
    status, _, err = run("keys add azure --stdin", stdin=KEY)
    assert status == 0
    assert "ogate providers edit azure --variable AZURE_RESOURCE_NAME=" in err


def test_the_list_shows_names_places_and_four_characters(run, monkeypatch):
    run("keys add openai --stdin", stdin=KEY)
    run("keys add openai --stdin --name work --store file", stdin=OTHER)
    monkeypatch.setenv("GROQ_API_KEY", "gsk_0123456789wxyz")
    status, out, err = run("keys list")
    assert status == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["openai", "default", "default", "…cdef", "OS", "keyring"] in lines
    assert ["openai", "work", "…3210", "encrypted", "file"] in lines
    assert ["groq", "…wxyz", "GROQ_API_KEY"] in lines
    assert "ogate keys import" in err


def test_the_list_as_json_is_one_document(run, monkeypatch):
    run("keys add openai --stdin", stdin=KEY)
    monkeypatch.setenv("GROQ_API_KEY", "gsk_0123456789wxyz")
    status, out, err = run("keys list --json")
    document = json.loads(out)
    assert (status, err, document["version"]) == (0, "", 1)
    (key,) = document["keys"]
    assert {**key, "added_at": None} == {
        "provider_id": "openai",
        "name": "default",
        "store": "keyring",
        "variable": None,
        "last_four": "cdef",
        "is_default": True,
        "added_at": None,
        "last_used_at": None,
        "last_tested_at": None,
        "last_test_result": None,
    }
    assert document["found"] == [
        {"provider_id": "groq", "where": "env", "variable": "GROQ_API_KEY", "last_four": "wxyz"}
    ]


def test_the_list_opens_no_store(run, monkeypatch):
    """Presence is answered by the list alone, on machines with a locked keyring too."""
    run("keys add openai --stdin", stdin=KEY)

    def opened(*args):
        raise AssertionError("a store was opened")

    monkeypatch.setattr(MemoryKeyring, "get_password", opened)
    assert run("keys list")[0] == 0


def test_names_defaults_and_removal(run, backend):
    run("keys add openai --stdin", stdin=KEY)
    run("keys add openai --stdin --name work", stdin=OTHER)
    assert run("keys default openai work")[1] == "openai now uses work\n"
    assert run("keys rename openai default home")[1] == "openai: default is now home\n"
    status, out, _ = run("keys remove openai work --yes")
    assert (status, out) == (0, "openai/work is removed\nopenai now uses home\n")
    assert backend.passwords == {("ogate", "openai/home"): KEY}


def test_removing_asks_and_no_leaves_everything(run, person):
    run("keys add openai --stdin --no-test", stdin=KEY)
    person[0][:] = ["n"]
    assert run("keys remove openai")[0] == 130
    assert stored() == {"openai/default": KEY}


def test_removing_without_a_terminal_wants_yes(run):
    run("keys add openai --stdin", stdin=KEY)
    status, _, err = run("keys remove openai")
    assert status == 2
    assert "ogate keys remove openai default --yes" in err
    assert stored() == {"openai/default": KEY}


def test_which_of_several_keys_must_be_said(run):
    run("keys add openai --stdin", stdin=KEY)
    run("keys add openai --stdin --name work", stdin=OTHER)
    for verb in ("remove --yes", "rotate --stdin"):
        verb, flag = verb.split()
        status, _, err = run(f"keys {verb} openai {flag}", stdin=KEY)
        assert status == 2
        assert "default, work" in err


def test_a_key_in_a_lost_keyring_can_be_taken_off_the_list(run, person, monkeypatch):
    """Otherwise a home copied to a machine without a keyring could never be put right."""
    run("keys add openai --stdin --no-test", stdin=KEY)
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())
    assert run("keys remove openai --yes")[0] == 4
    assert len(entries()) == 1
    person[0][:] = ["y", "y"]
    status, _, err = run("keys remove openai")
    assert status == 0
    assert "may still lie in the OS keyring" in err
    assert entries() == ()


def test_rotating_replaces_the_key(run):
    run("keys add openai --stdin --name work", stdin=KEY)
    assert run("keys rotate openai --stdin", stdin=OTHER)[0] == 0
    assert stored() == {"openai/work": OTHER}


def test_a_reference_is_rotated_where_it_lies(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run("keys add openai --from-env OPENAI_API_KEY --reference")
    status, _, err = run("keys rotate openai --stdin", stdin=OTHER)
    assert status == 2
    assert "OPENAI_API_KEY" in err


def _auth_file(isolated_home):
    folder = isolated_home / ".local" / "share" / "opencode"
    folder.mkdir(parents=True)
    file = folder / "auth.json"
    file.write_text(json.dumps({"groq": {"type": "api", "key": OTHER}}))
    return file


def test_found_keys_are_imported_and_their_places_left_alone(run, monkeypatch, isolated_home):
    auth = _auth_file(isolated_home)
    before = (auth.read_bytes(), auth.stat().st_mtime_ns)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    status, out, err = run("keys import --yes")
    assert status == 0
    assert "from OPENAI_API_KEY" in err
    assert "from Opencode's auth.json" in err
    assert len(out.splitlines()) == 2
    assert stored() == {"openai/default": KEY, "groq/default": OTHER}
    assert (auth.read_bytes(), auth.stat().st_mtime_ns) == before
    assert "no key found" in run("keys import --yes")[2]


def test_importing_can_be_limited_and_refused(run, person, monkeypatch, isolated_home):
    _auth_file(isolated_home)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    person[0][:] = ["n"]
    assert run("keys import")[0] == 130
    assert entries() == ()
    person[0][:] = [""]
    run("keys import groq")
    assert stored() == {"groq/default": OTHER}


def test_what_is_not_a_key_is_not_imported(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "short")
    status, _, err = run("keys import --yes")
    assert status == 0
    assert "is not a key" in err
    assert entries() == ()


def _answering(result):
    def answer(asked):
        if KEY in asked.headers.get("authorization", ""):
            return result
        return 401, {"error": {"message": f"bad key {OTHER}"}}

    return answer


def test_testing_tags_the_key_and_ends_with_one_unless_all_are_ok(run):
    with provider_stub(_answering((200, {"data": [{"id": "m"}, {"id": "n"}]}))) as stub:
        run(f"config set providers.openai.base_url {stub.base_url}")
        run("keys add openai --stdin", stdin=KEY)
        assert run("keys test openai")[0] == 0
        run("keys add openai --stdin --name old", stdin=OTHER)
        status, out, _ = run("keys test --json")
    assert status == 1
    assert [(test["name"], test["result"]) for test in json.loads(out)["tests"]] == [
        ("default", "ok"),
        ("old", "wrong-key"),
    ]
    assert [entry.last_test_result for entry in entries()] == ["ok", "wrong-key"]


def test_a_found_key_is_tested_without_being_kept(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with provider_stub(_answering((200, {"data": []}))) as stub:
        run(f"config set providers.openai.base_url {stub.base_url}")
        assert run("keys test openai")[0] == 0
    assert entries() == ()


def test_a_prompt_goes_to_the_cheapest_model_or_the_one_named(run):
    with provider_stub(_answering((200, {"output": []}))) as stub:
        run(f"config set providers.openai.base_url {stub.base_url}")
        run("keys add openai --stdin", stdin=KEY)
        assert run("keys test openai --prompt")[0] == 0
        assert run("keys test openai --prompt --model gpt-9")[0] == 0
    first, second = stub.asked
    assert first.path == second.path == "/v1/responses"
    assert first.body["model"].startswith("gpt-")
    assert second.body["model"] == "gpt-9"


def test_a_provider_without_a_key_says_where_ogate_looked(run):
    status, _, err = run("keys test openai")
    assert status == 4
    assert "[missing-credential]" in err
    assert "OPENAI_API_KEY" in err


def test_a_locked_store_is_an_outcome_not_the_end(run, monkeypatch):
    run("keys add openai --stdin", stdin=KEY)
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())
    status, out, _ = run("keys test --json")
    assert status == 1
    assert json.loads(out)["tests"][0]["result"] == "unclear"


def test_no_key_is_in_any_file_of_the_home(run, isolated_home, monkeypatch):
    """After every verb has run."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    run("keys import --yes --store file")
    run("keys add openai --stdin --name work --store file", stdin=OTHER)
    run("keys rename openai work home")
    run("keys list")
    run("keys rotate openai home --stdin", stdin=KEY)
    run("keys remove openai default --yes")
    for folder, _, files in os.walk(isolated_home):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read()
            assert KEY.encode() not in content, name
            assert OTHER.encode() not in content, name


@pytest.mark.e2e
def test_a_real_terminal_hides_the_key_and_survives_ctrl_c(isolated_home):
    """The prompt does not echo; Ctrl-C ends with 130 and leaves no file of keys."""
    environ = {
        **os.environ,
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "PYTHONUNBUFFERED": "1",
    }
    arguments = ["-m", "opencode_gate.cli.main", "keys", "add", "openai", "--no-test"]
    child = pexpect.spawn(sys.executable, arguments, env=environ, encoding="utf-8", timeout=30)
    child.expect("no usable OS keyring")
    child.expect("1\\) in ogate's encrypted file, opened by a key file")
    child.expect("Where")
    child.sendline("")
    child.expect("hidden")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not paths().credentials_index.exists()
    assert not paths().credentials_file.exists()

    child = pexpect.spawn(sys.executable, arguments, env=environ, encoding="utf-8", timeout=30)
    child.expect("Where")
    child.sendline("")
    child.expect("hidden")
    child.sendline(KEY)
    child.expect("is in the encrypted file")
    shown = child.before
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert KEY not in shown
    assert stored() == {"openai/default": KEY}


def test_a_passphrase_is_asked_until_two_are_the_same(monkeypatch, capsys):
    answers = ["short", "long passphrase", "other passphrase", "long passphrase", "long passphrase"]
    monkeypatch.setattr(prompts, "ask_hidden", lambda question: answers.pop(0))
    assert key_entry.ask_passphrase(True) == Secret("long passphrase")
    assert answers == []


@pytest.mark.parametrize(
    ("lines", "default", "expected"),
    [
        (["y"], False, True),
        (["n"], True, False),
        ([""], True, True),
        (["what", "YES"], False, True),
    ],
)
def test_yes_or_no(monkeypatch, lines, default, expected):
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    assert prompts.confirm("Sure?", default=default) is expected


def test_a_choice_is_a_number_and_the_end_of_input_leaves(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("9\nx\n2\n"))
    assert prompts.choose("Where", {"a": "here", "b": "there"}) == "b"
    with pytest.raises(KeyboardInterrupt):
        prompts.choose("Where", {"a": "here", "b": "there"})
    assert capsys.readouterr().out == ""
