"""A folder's repository, branch and commit are read from git's own files."""

import subprocess
from pathlib import Path

import pytest

from opencode_gate.session.project import project_of


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)

    git("init", "-b", "trunk")
    git("config", "user.email", "a@example.com")
    git("config", "user.name", "A")
    git("commit", "--allow-empty", "-m", "first")
    git("remote", "add", "origin", "https://me:hunter2@git.example/shop.git")
    return root


def _head(root: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_a_folder_inside_a_repository_belongs_to_it(repository: Path) -> None:
    inner = repository / "src" / "deep"
    inner.mkdir(parents=True)
    project = project_of(inner)
    assert (project.name, project.branch, project.commit) == ("shop", "trunk", _head(repository))
    assert project.repository == "https://git.example/shop.git"


def test_packed_references_and_worktrees_are_understood(repository: Path, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(repository), *words], check=True, capture_output=True)

    git("pack-refs", "--all")
    assert project_of(repository).commit == _head(repository)
    git("worktree", "add", str(tmp_path / "other"), "-b", "feature/x")
    other = project_of(tmp_path / "other")
    assert (other.branch, other.commit) == ("feature/x", _head(repository))
    assert other.repository == "https://git.example/shop.git"


def test_a_detached_head_has_a_commit_and_no_branch(repository: Path) -> None:
    subprocess.run(
        ["git", "-C", str(repository), "checkout", "--detach"], check=True, capture_output=True
    )
    project = project_of(repository)
    assert (project.branch, project.commit) == (None, _head(repository))


def test_an_address_that_is_none_is_unknown_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text('[remote "origin"]\n\turl = https://[git\n')
    assert project_of(tmp_path).repository is None


def test_a_name_that_is_no_unicode_is_told_as_far_as_it_is(tmp_path: Path) -> None:
    """No database takes it as it is."""
    folder = tmp_path / "caf\udce9"
    assert project_of(folder).name == "caf\ufffd"
    (folder / ".git").mkdir(parents=True)
    assert project_of(folder).name == "caf\ufffd"


def test_outside_a_repository_the_folder_is_the_project(tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    project = project_of(folder)
    assert (project.name, project.repository, project.branch) == ("notes", None, None)
