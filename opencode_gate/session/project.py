"""What project a folder belongs to, read from git's own files.

No `git` is started: it would cost more than all the rest of the launch. The invariant: anything
unreadable is unknown (`None`) and never stops a start; a password in a remote's address is left
out.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A folder's project: its name, and the repository's address, branch and commit if any."""

    name: str
    root: Path
    repository: str | None = None
    branch: str | None = None
    commit: str | None = None


def project_of(folder: Path) -> Project:
    """The project that `folder` belongs to; outside a repository the folder itself."""
    for root in (folder, *folder.parents):
        marker = root / ".git"
        try:
            if marker.exists():
                return _repository(root, _git_folder(marker))
        except OSError:
            break
    return Project(name=text_of(folder.name or folder), root=folder)


def text_of(path: str | Path) -> str:
    """A path as text; what of it is no Unicode is replaced, as Opencode does too."""
    return os.fsencode(path).decode("utf-8", "replace")


def _git_folder(marker: Path) -> Path:
    """The git folder behind `.git`, which is a file in worktrees and submodules."""
    if marker.is_dir():
        return marker
    text = _text(marker) or ""
    return (marker.parent / text.removeprefix("gitdir:").strip()).resolve()


def _repository(root: Path, git: Path) -> Project:
    head = (_text(git / "HEAD") or "").strip()
    reference = head.removeprefix("ref: ") if head.startswith("ref: ") else None
    common_text = _text(git / "commondir")
    common = git if common_text is None else (git / common_text.strip()).resolve()
    return Project(
        name=text_of(root.name),
        root=root,
        repository=_origin(common / "config"),
        branch=reference.removeprefix("refs/heads/") if reference else None,
        commit=_commit(git, common, reference) if reference else head or None,
    )


def _commit(git: Path, common: Path, reference: str) -> str | None:
    for folder in (git, common):
        loose = _text(folder / reference)
        if loose:
            return loose.strip()
    for line in (_text(common / "packed-refs") or "").splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return None


def _origin(config: Path) -> str | None:
    in_origin = False
    for line in (_text(config) or "").splitlines():
        stripped = line.strip()
        if stripped.startswith("["):
            in_origin = stripped == '[remote "origin"]'
        elif in_origin and stripped.partition("=")[0].strip() == "url":
            return _without_password(stripped.partition("=")[2].strip())
    return None


def _without_password(address: str) -> str | None:
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
