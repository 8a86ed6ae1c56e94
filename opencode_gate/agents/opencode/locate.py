"""Finding Opencode on this machine, and its version, in about a millisecond.

The PATH entry may be a symlink into `node_modules/opencode-ai/bin`, a shell or `.cmd` shim that
npm or pnpm made, or a plain binary. Where a `package.json` lies beside it, that file is the
version; only a plain binary is asked (`--version`, 0.6-1.1 s), once per path, size and mtime.

The invariant: the wrapper that makes `opencode` mean `ogate run --` is never taken for Opencode.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from opencode_gate.agents.opencode.folders import home_folder
from opencode_gate.config.paths import Paths, private_folder
from opencode_gate.config.private_files import replace_private
from opencode_gate.core.errors import AgentMissing, AgentUnusable, ConfigError

TESTED_VERSION = "1.18.33"
"""The version every fact in this package was checked against; a private copy is this one."""

SUPPORTED_MAJOR = 1

_SHIM_MAX_BYTES = 16_384
# Not compiled: most starts use none of these.
_SHIM_TARGET = (
    r"""["']?([^"'\s=]*node_modules[\\/]opencode-ai[\\/]bin[\\/]opencode(?:\.exe)?)["']?"""
)
_WRAPPER = r"\bogate(?:\.exe)?[\"']?\s+run\b"
_VERSION_IN_FOLDER = r"[\\/](?:opencode[\\/]|[^\\/]*-opencode-)(\d+\.\d+\.\d+)[\\/]"
_VERSION_TEXT = r"\d+\.\d+\.\d+\S*"
_VERSION_TIMEOUT_S = 20.0
_INSTALL_TIMEOUT_S = 600.0
_PACKAGE = b'{"private": true, "allowScripts": {"opencode-ai": true}}\n'
"""Tells npm that Opencode's own installation script may run (it asks from 11.19 on)."""


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """An Opencode that can be started.

    Attributes:
        path: what to execute.
        version: as its package says, `None` where nothing could tell.
        package_json: the file the version came from, if one did.
        is_private: it is the copy `ogate` installed, whose updates `ogate` looks after.
    """

    path: Path
    version: str | None
    package_json: Path | None = None
    is_private: bool = False

    @property
    def major(self) -> int | None:
        """The major version, `None` if the version is unknown."""
        match = re.match(r"\d+", self.version or "")
        return int(match.group()) if match else None

    @property
    def is_verified(self) -> bool:
        """Its major version is the one this package was written for."""
        return self.major == SUPPORTED_MAJOR


def find_opencode(
    paths: Paths,
    environ: Mapping[str, str],
    *,
    agent_path: str | None = None,
    platform: str = sys.platform,
) -> Installation:
    """The Opencode to start: the configured one, else the one on `PATH`, else the private copy.

    A private copy of a supported version is preferred to a `PATH` entry of another major.

    Raises:
        AgentMissing: there is none.
        AgentUnusable: there is one that cannot be executed.
    """
    if agent_path is not None:
        chosen = Path(agent_path).expanduser()
        if not chosen.exists():
            raise AgentMissing(
                "agent-missing",
                f"there is no {chosen}",
                hint="correct run.agent_path: ogate config edit",
            )
        return _inspect(chosen, paths)
    private = private_copy(paths)
    for candidate in _candidates(environ, platform=platform):
        found = _inspect(candidate, paths)
        return (
            private if private is not None and found.major not in (None, SUPPORTED_MAJOR) else found
        )
    if private is not None:
        return private
    raise AgentMissing(
        "agent-missing",
        "Opencode is not installed",
        details=("ogate looked on PATH and for a private copy of its own",),
        hint="npm install -g opencode-ai, or let ogate keep a private copy: ogate run --install",
    )


def require_supported(
    installation: Installation, *, has_hard_rules: bool, database: Path | None = None
) -> str | None:
    """A warning to show for a version this package was not written for, `None` for a fitting one.

    `database` is Opencode's own, which version 2 changes for good.

    Raises:
        AgentUnusable: a hard rule depends on every request passing the gateway, and this
            version may not send them there; or our private copy would open a database that a
            newer major version has taken over.
    """
    if installation.is_private:
        _require_own_database(installation, database)
    if installation.is_verified or installation.version is None:
        return None
    warning = (
        f"Opencode {installation.version} is unverified: ogate was tested with "
        f"{TESTED_VERSION}, and another major version may not send its requests here"
    )
    if has_hard_rules:
        raise AgentUnusable(
            "agent-unusable",
            f"Opencode {installation.version} is not supported under a hard rule",
            details=(warning,),
            hint=f"npm install -g opencode-ai@{SUPPORTED_MAJOR}, or: ogate run --install",
        )
    return warning


def _require_own_database(installation: Installation, database: Path | None) -> None:
    from opencode_gate.agents.opencode.database import newest_major

    newest = newest_major(database)
    if newest is not None and installation.major is not None and newest > installation.major:
        raise AgentUnusable(
            "agent-unusable",
            f"Opencode {newest}.x has taken over {database}, which our private copy "
            f"{installation.version} must not open",
            hint="put your own Opencode on PATH, or give the private copy another database: "
            "OPENCODE_DB=opencode-1.db",
        )


def private_copy(paths: Paths) -> Installation | None:
    """The copy `install_private` made, or `None`."""
    package = paths.private_agent / "node_modules" / "opencode-ai"
    for name in ("opencode.exe", "opencode"):
        binary = package / "bin" / name
        if binary.is_file():
            found = _inspect(binary, paths)
            return Installation(
                path=found.path,
                version=found.version,
                package_json=found.package_json,
                is_private=True,
            )
    return None


def install_private(paths: Paths, environ: Mapping[str, str]) -> Installation:
    """Installs the tested version below `ogate`'s own data folder with npm.

    The caller has asked the user. npm's output goes where this process's stderr goes.

    Raises:
        AgentMissing: npm is missing, or the installation failed.
    """
    folder = str(private_folder(paths.private_agent))
    replace_private(paths.private_agent / "package.json", _PACKAGE)
    _install(["--prefix", folder, "--no-save", f"opencode-ai@{TESTED_VERSION}"], environ)
    found = private_copy(paths)
    if found is None:
        raise AgentMissing(
            "agent-missing",
            f"npm has put no Opencode into {folder}",
            hint="npm install -g opencode-ai",
        )
    return found


def install_global(environ: Mapping[str, str]) -> None:
    """Installs the newest version with npm, for all programs of the user.

    The caller has asked the user. npm's output goes where this process's stderr goes.

    Raises:
        AgentMissing: npm is missing, or the installation failed.
    """
    _install(["-g", "opencode-ai"], environ)


def _install(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    import shutil

    npm = shutil.which("npm", path=environ.get("PATH"))
    if npm is None:
        raise AgentMissing(
            "agent-missing",
            "npm is needed to install Opencode and is not on PATH",
            hint="install Node.js, or Opencode itself: https://opencode.ai",
        )
    try:
        done = subprocess.run(
            [npm, "install", *arguments, "--no-audit", "--no-fund"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AgentMissing(
            "agent-missing", f"npm could not install Opencode: {error}", hint="see npm's output"
        ) from error
    if done.returncode != 0:
        raise AgentMissing(
            "agent-missing",
            f"npm could not install Opencode (exit status {done.returncode})",
            hint="npm's own output is above; then: npm install -g opencode-ai",
        )


def _candidates(environ: Mapping[str, str], *, platform: str) -> Iterator[Path]:
    """Opencodes that could be meant, best first; broken links and our own wrapper left out."""
    if platform == "win32":
        extensions = [e for e in environ.get("PATHEXT", ".EXE;.CMD").split(";") if e]
        names = [f"opencode{extension.lower()}" for extension in extensions]
    else:
        names = ["opencode"]
    folders = [Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry]
    folders.append(home_folder(environ, platform=platform) / ".opencode" / "bin")
    for folder in folders:
        for name in names:
            candidate = folder / name
            if candidate.is_file() and not _is_wrapper(candidate):
                yield candidate


def _inspect(entry: Path, paths: Paths) -> Installation:
    """What `entry` leads to, and its version.

    Raises:
        AgentUnusable: it cannot be executed.
    """
    binary = _target(entry)
    if not os.access(binary, os.X_OK) or not binary.is_file():
        raise AgentUnusable(
            "agent-unusable",
            f"{entry} cannot be executed",
            hint="reinstall it: npm install -g opencode-ai",
        )
    package_json = binary.parent.parent / "package.json"
    version = _package_version(package_json)
    if version is not None:
        if _is_stub(binary):
            raise AgentUnusable(
                "agent-unusable",
                f"{binary} is not Opencode itself: its installation did not finish",
                hint="npm rebuild -g opencode-ai, or install without --ignore-scripts",
            )
        return Installation(path=binary, version=version, package_json=package_json)
    in_folder = re.search(_VERSION_IN_FOLDER, str(binary))
    if in_folder:
        return Installation(path=entry, version=in_folder.group(1))
    return Installation(path=entry, version=_asked_version(entry, binary, paths))


def _target(entry: Path) -> Path:
    """The file behind links and shims; `entry` itself where it is neither."""
    real = Path(os.path.realpath(entry))
    text = _small_text(real)
    match = re.search(_SHIM_TARGET, text) if text else None
    if match is None:
        return real
    named = re.sub(r"^(?:%~?dp0%?|%dp0%|\$basedir|\$\{basedir\})[\\/]*", "", match.group(1))
    target = Path(named.replace("\\", "/"))
    resolved = target if target.is_absolute() else real.parent / target
    return Path(os.path.realpath(resolved)) if resolved.exists() else real


def _small_text(path: Path) -> str | None:
    """The text of a shim-sized file, `None` for anything bigger or unreadable."""
    try:
        if path.stat().st_size > _SHIM_MAX_BYTES:
            return None
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return None


def _is_wrapper(path: Path) -> bool:
    text = _small_text(path)
    return bool(text and re.search(_WRAPPER, text))


def _is_stub(binary: Path) -> bool:
    """True for the placeholder npm leaves when its install script was not run."""
    text = _small_text(binary)
    return text is not None and not text.startswith("#!")


def _package_version(package_json: Path) -> str | None:
    try:
        document = json.loads(package_json.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("name") != "opencode-ai":
        return None
    version = document.get("version")
    return version if isinstance(version, str) else None


def _asked_version(entry: Path, binary: Path, paths: Paths) -> str | None:
    """What `entry --version` prints, remembered for this very file."""
    status = binary.stat()
    identity = f"{status.st_mtime_ns}:{status.st_size}"
    cache_file = paths.cache / "opencode-version.json"
    cache = _read_cache(cache_file)
    known = cache.get(str(entry))
    if known is not None and known[0] == identity:
        return known[1]
    try:
        answer = subprocess.run(
            [str(entry), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise AgentUnusable(
            "agent-unusable",
            f"{entry} cannot be executed: {error.strerror}",
            hint="reinstall it: npm install -g opencode-ai",
        ) from error
    except subprocess.TimeoutExpired:
        return None
    match = re.search(_VERSION_TEXT, answer.stdout)
    if match is None:
        return None
    cache[str(entry)] = (identity, match.group())
    _write_cache(cache_file, cache)
    return match.group()


def _read_cache(path: Path) -> dict[str, tuple[str, str]]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {
        entry: (str(value[0]), str(value[1]))
        for entry, value in document.items()
        if isinstance(value, list) and len(value) == 2
    }


def _write_cache(path: Path, cache: Mapping[str, tuple[str, str]]) -> None:
    """Best effort: a cache that cannot be written costs a second, not a session."""
    with contextlib.suppress(ConfigError):
        replace_private(path, json.dumps(cache).encode(), is_cache=True)
