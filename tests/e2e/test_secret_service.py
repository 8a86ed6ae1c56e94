"""A real gnome-keyring on a D-Bus of its own: open, locked, absent, and asking in vain.

Each test starts `dbus-run-session`, so nothing touches the machine's own keyring.
"""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        shutil.which("gnome-keyring-daemon") is None or shutil.which("dbus-run-session") is None,
        reason="needs gnome-keyring and dbus",
    ),
]

KEY = "sk-test-0123456789abcdef"
LIMIT_S = 3.0
"""What is promised for a keyring that cannot ask anybody."""

_UNLOCKED = "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null\n"
_LOCKED = "gnome-keyring-daemon --start --components=secrets >/dev/null\n"
_OGATE = f"{sys.executable} -m opencode_gate.cli.main"

# Owns the name of the desktop's prompter and never shows anything: what a keyring waits for
# without end when its dialogue appears where nobody sits.
_SILENT_PROMPTER = """
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection
connection = open_dbus_connection()
bus = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
ask = new_method_call(bus, "RequestName", "su", ("org.gnome.keyring.SystemPrompter", 4))
assert connection.send_and_get_reply(ask).body == (1,)
print("ready", flush=True)
while True:
    connection.receive()  # until the bus is gone
"""


@pytest.fixture
def in_session(isolated_home, tmp_path):
    """Runs a shell script on a fresh D-Bus, without a display."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS")
    }
    environ["XDG_RUNTIME_DIR"] = str(tmp_path / "runtime")
    os.mkdir(tmp_path / "runtime", 0o700)
    prompter = tmp_path / "prompter.py"
    prompter.write_text(_SILENT_PROMPTER)

    def run(script, *, stdin="", **more):
        script = script.replace("OGATE", _OGATE).replace(
            "SILENT_PROMPTER\n",
            f"mkfifo {tmp_path}/ready\n"
            f"{sys.executable} {prompter} >{tmp_path}/ready 2>/dev/null &\n"
            f"read line <{tmp_path}/ready\n",
        )
        return subprocess.run(
            ["dbus-run-session", "--", "bash", "-c", script],
            input=stdin,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_a_key_is_kept_read_renamed_and_deleted(in_session, isolated_home):
    """In the real keyring, by one process after another; nothing readable in any file."""
    script = _UNLOCKED + (
        "set -e\n"
        "OGATE keys add openai --stdin\n"
        "OGATE keys rename openai default work\n"
        f"{sys.executable} -m keyring get ogate openai/work | sha256sum\n"
        "OGATE keys list --json\n"
    )
    done = in_session(script, stdin=KEY)
    assert done.returncode == 0, done.stderr
    digest = subprocess.run(
        ["sha256sum"], input=KEY + "\n", capture_output=True, text=True, check=True
    ).stdout
    assert digest in done.stdout
    assert KEY not in done.stdout + done.stderr
    assert '"store": "keyring"' in done.stdout
    for folder, _, files in os.walk(isolated_home):
        for name in files:
            with open(os.path.join(folder, name), "rb") as file:
                assert KEY.encode() not in file.read(), name
    gone = in_session(
        _UNLOCKED
        + "OGATE keys remove openai work --yes\n"
        + f"{sys.executable} -m keyring get ogate openai/work\n"
    )
    assert "openai/work is removed" in gone.stdout
    assert gone.returncode == 1


def _refused(in_session, script, **more):
    """Runs `keys add` in a session where it cannot work; says how long it waited.

    What the start of a command takes on this machine just now is measured beside it.
    """
    timed = (
        "before=$(date +%s.%N); OGATE keys list >/dev/null\n"
        "start=$(date +%s.%N); OGATE keys add openai --stdin\n"
        'status=$?; echo "$before $start $(date +%s.%N)"; exit $status\n'
    )
    done = in_session(script + timed, stdin=KEY, **more)
    before, start, end = map(float, done.stdout.split()[-3:])
    assert done.returncode == 4, done.stderr
    assert KEY not in done.stdout + done.stderr
    assert "--store file" in done.stderr
    return done.stderr, (end - start) - (start - before)


@pytest.mark.parametrize("has_collection", [True, False])
def test_a_locked_keyring_fails_in_time(in_session, has_collection):
    """With a collection it asks to unlock it, without one to make one: both in vain."""
    if has_collection:
        assert in_session(_UNLOCKED + "OGATE keys add groq --stdin\n", stdin=KEY).returncode == 0
    error, took_s = _refused(in_session, _LOCKED)
    assert "[keyring-locked]" in error
    assert took_s <= LIMIT_S


def test_a_dialogue_that_nobody_answers_fails_in_time(in_session):
    """The keyring waits without end for a prompter that is there but silent."""
    error, took_s = _refused(in_session, "SILENT_PROMPTER\n" + _LOCKED)
    assert "[keyring-locked]" in error
    assert "within 2 s" in error
    assert took_s <= LIMIT_S


def test_a_silent_dialogue_under_wsl_fails_in_time_in_spite_of_its_display(in_session):
    script = "SILENT_PROMPTER\n" + _LOCKED
    _, took_s = _refused(in_session, script, DISPLAY=":99", WSL_DISTRO_NAME="Debian")
    assert took_s <= LIMIT_S


def test_no_keyring_at_all_is_said(in_session):
    """A bus without a Secret Service that could be started on it: a container."""
    environ = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-m", "opencode_gate.cli.main", "keys", "add", "openai", "--stdin"],
        input=KEY,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 4
    assert "[no-keyring]" in done.stderr
    assert "ogate keys add openai --store file" in done.stderr


def test_many_keys_of_a_locked_keyring_cost_one_wait(in_session):
    """A session reads the keys of all routed providers; the time limit is for all of them."""
    added = "".join(
        f"OGATE keys add {name} --from-env KEY\n" for name in ("openai", "anthropic", "groq")
    )
    assert in_session(_UNLOCKED + added, KEY=KEY).returncode == 0
    program = (
        "import os, time\n"
        "from opencode_gate.config.paths import paths\n"
        "from opencode_gate.core.errors import CredentialError\n"
        "from opencode_gate.credentials.vault import Vault\n"
        "vault, start, codes = Vault(paths(), os.environ), time.monotonic(), []\n"
        "for entry in vault.index.entries():\n"
        "    try:\n"
        "        vault.secret(entry)\n"
        "    except CredentialError as error:\n"
        "        codes.append(error.code)\n"
        'print(len(codes), set(codes) == {"keyring-locked"}, time.monotonic() - start)\n'
    )
    done = in_session("SILENT_PROMPTER\n" + _LOCKED + f"{sys.executable} -c '{program}'\n")
    count, all_locked, took_s = done.stdout.split()
    assert (count, all_locked) == ("3", "True"), done.stderr
    assert float(took_s) <= LIMIT_S
