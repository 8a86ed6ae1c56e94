"""A newer catalogue from models.dev, fetched in a process of its own.

The idea: taking models.dev's file apart needs 80 MB for a moment, which neither the launcher nor
the gateway can spare; a child process does it, at most once a day, and the next start reads the
outcome. The invariants: nobody waits for it, a failure changes nothing, and the catalogue is
replaced in one step by an archive that has been read back.
"""

import asyncio
import contextlib
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from opencode_gate.catalog.archive import Archive, BadCatalogue, pack
from opencode_gate.config.paths import Paths
from opencode_gate.config.private_files import replace_private
from opencode_gate.config.settings import Settings
from opencode_gate.core.errors import ConfigError, UpstreamError

SOURCE_URL = "https://models.dev/api.json"
EVERY_S = 24 * 60 * 60
COMMAND = (sys.executable, "-m", "opencode_gate.catalog.refresh")
_TIMEOUT_S = 30.0
_MOST_BYTES = 64 * 1024 * 1024


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking: a newer catalogue (`updated`) or the one at hand is it (`current`)."""

    outcome: Literal["updated", "current"]
    date: str


class BackgroundRefresh:
    """The child process that fetches; `stop` it before going away.

    It belongs to the event loop, which takes note of its end: a gateway that serves for weeks
    keeps no trace of it in the machine's list of processes.
    """

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None

    async def start(self, paths: Paths, settings: Settings) -> None:
        """Starts the child if a newer catalogue is wanted and due; does not wait for it."""
        if settings.catalog.refresh and is_due(paths):
            # Without a child the catalogue at hand stays in use.
            with contextlib.suppress(OSError):
                self._child = await asyncio.create_subprocess_exec(
                    *COMMAND,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )

    async def stop(self) -> None:
        """Ends the child if it still runs; what it had not finished is done another day."""
        child = self._child
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


def is_due(paths: Paths, *, now_s: float | None = None) -> bool:
    """Whether nobody has asked models.dev for a day, successfully or not."""
    try:
        asked_s = _stamp(paths).stat().st_mtime
    except OSError:
        return True
    return not 0 <= (time.time() if now_s is None else now_s) - asked_s < EVERY_S


def refresh(paths: Paths, *, url: str = SOURCE_URL, today: str | None = None) -> Refreshed:
    """Asks for a newer catalogue now and puts it in place.

    Args:
        url: where the file is.
        today: the date the new catalogue gets; this day, UTC.

    Raises:
        UpstreamError: `upstream-unreachable` or `upstream-protocol`; the old one stays.
        ConfigError: the cache folder cannot be written.
    """
    replace_private(_stamp(paths), b"")
    etag = _etag(paths)
    content, etag = _fetch(url, etag)
    if content is None:
        return Refreshed(outcome="current", date=Archive(paths.catalogue).meta.date)
    import json

    date = today if today is not None else datetime.now(UTC).date().isoformat()
    try:
        archive = pack(json.loads(content), date=date, etag=etag)
    except (ValueError, BadCatalogue) as error:
        raise UpstreamError(
            "upstream-protocol",
            f"{url} did not answer with a catalogue: {error}",
            hint="the catalogue at hand stays in use",
        ) from error
    replace_private(paths.catalogue, archive)
    return Refreshed(outcome="updated", date=date)


def main(url: str = SOURCE_URL) -> int:
    """What the child process does; there is nobody to tell of a failure."""
    from opencode_gate.config.paths import paths

    try:
        refresh(paths(), url=url)
    except (UpstreamError, ConfigError):
        return 1
    return 0


def _stamp(paths: Paths) -> Path:
    return paths.cache / "catalogue.asked"


def _etag(paths: Paths) -> str | None:
    try:
        return Archive(paths.catalogue).meta.etag
    except (FileNotFoundError, BadCatalogue):
        return None


def _fetch(url: str, etag: str | None) -> tuple[bytes | None, str | None]:
    """The file and its ETag, or `None` if it is still the one of `etag`."""
    import httpx

    from opencode_gate.config.tls import provider_context

    headers = {"accept": "application/json", "accept-encoding": "gzip"}
    if etag is not None:
        headers["if-none-match"] = etag
    try:
        with (
            httpx.Client(
                verify=provider_context(),
                timeout=_TIMEOUT_S,
                follow_redirects=True,
                headers=headers,
            ) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code == 304 and etag is not None:
                return None, etag
            if answer.status_code != 200:
                raise UpstreamError(
                    "upstream-protocol",
                    f"{url} answered with status {answer.status_code}",
                    hint="the catalogue at hand stays in use",
                )
            content = bytearray()
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise UpstreamError(
                        "upstream-protocol", f"{url} sent more than {_MOST_BYTES} bytes"
                    )
            return bytes(content), answer.headers.get("etag")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise UpstreamError(
            "upstream-unreachable",
            f"cannot fetch {url}: {error}",
            hint="the catalogue at hand stays in use; `ogate doctor` looks at proxies",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
