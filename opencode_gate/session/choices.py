"""What was chosen, and the memory of it per project folder.

The invariant: the file is replaced as a whole and readable by its owner alone. It only saves a
question: a damaged file counts as empty and never stops a start.
"""

import json
from pathlib import Path

import msgspec

from opencode_gate.config.private_files import exclusive, replace_private

_VERSION = 1
_FOLDERS_KEPT = 500


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session starts.

    `model_id` is `None` where only the provider is known so far, and `small_model_id` where
    Opencode is left its own way of finding one.
    """

    provider_id: str
    model_id: str | None = None
    small_model_id: str | None = None


def remembered(file: Path, folder: Path) -> Choice | None:
    """What was chosen last in `folder`, `None` if nothing was."""
    entry = _read(file).get(str(folder.absolute()))
    if not isinstance(entry, dict) or not isinstance(entry.get("provider_id"), str):
        return None
    model_id, small_model_id = entry.get("model_id"), entry.get("small_model_id")
    return Choice(
        provider_id=entry["provider_id"],
        model_id=model_id if isinstance(model_id, str) else None,
        small_model_id=small_model_id if isinstance(small_model_id, str) else None,
    )


def remember(file: Path, folder: Path, choice: Choice) -> None:
    """Keeps `choice` for `folder`; of very many folders the longest unused are forgotten.

    Raises:
        ConfigError: the file cannot be written.
    """
    with exclusive(file):
        folders = _read(file)
        folders.pop(str(folder.absolute()), None)
        folders[str(folder.absolute())] = msgspec.structs.asdict(choice)
        kept = dict(list(folders.items())[-_FOLDERS_KEPT:])
        text = json.dumps({"version": _VERSION, "folders": kept}, indent=2) + "\n"
        replace_private(file, text.encode())


def _read(file: Path) -> dict[str, object]:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    folders = document.get("folders") if isinstance(document, dict) else None
    return folders if isinstance(folders, dict) else {}
