"""A newer catalogue: fetched at most daily, put in place whole, and a failure changes nothing."""

import asyncio
import gzip
import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from msgspec.structs import replace

from opencode_gate.catalog import refresh as refreshing
from opencode_gate.catalog.archive import pack
from opencode_gate.catalog.catalogue import open_catalogue
from opencode_gate.catalog.refresh import EVERY_S, BackgroundRefresh, is_due, refresh
from opencode_gate.config.paths import paths
from opencode_gate.config.settings import CatalogSettings, Settings
from opencode_gate.core.errors import UpstreamError
from tests.support.small_catalogue import small_api

TIMEOUT_S = 30.0


class Source:
    """models.dev, small: answers with `api` unless asked with its ETag."""

    def __init__(self) -> None:
        self.api: object = small_api()
        self.status = 200
        self.asked: list[dict[str, str]] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.asked.append({name.lower(): value for name, value in self.headers.items()})
                if self.headers.get("if-none-match") == '"v1"':
                    self.send_response(304)
                    self.end_headers()
                    return
                body = gzip.compress(json.dumps(source.api).encode())
                self.send_response(source.status)
                self.send_header("etag", '"v1"')
                self.send_header("content-encoding", "gzip")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api.json"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def source() -> Iterator[Source]:
    one = Source()
    yield one
    one.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request) -> Iterator[asyncio.Runner]:
    """Runs in either event loop a gateway may have: each takes note of children in its own way."""
    with asyncio.Runner(loop_factory=pytest.importorskip(request.param).new_event_loop) as one:
        yield one


def python(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def telling_its_number(file: Path, then: str = "") -> tuple[str, ...]:
    """A process that writes its number into a file, whole, and goes on."""
    return python(
        "import os, pathlib, time\n"
        f"part = pathlib.Path({f'{file}.part'!r})\n"
        "part.write_text(str(os.getpid()))\n"
        f"part.rename({str(file)!r})\n"
        f"{then}"
    )


async def number_in(file: Path) -> int:
    async with asyncio.timeout(TIMEOUT_S):
        while not file.exists():
            await asyncio.sleep(0.01)
    return int(file.read_text())


def is_listed(process: int) -> bool:
    """Whether the machine still lists it, be it running or dead."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def catalogue_date() -> str:
    return open_catalogue(paths(), Settings(), {}).date


def test_a_newer_catalogue_is_fetched_once_and_then_asked_for_by_its_etag(source) -> None:
    first = refresh(paths(), url=source.url, today="2099-01-01")
    assert (first.outcome, catalogue_date()) == ("updated", "2099-01-01")
    second = refresh(paths(), url=source.url, today="2099-02-02")
    assert (second.outcome, second.date, catalogue_date()) == (
        "current",
        "2099-01-01",
        "2099-01-01",
    )
    assert "if-none-match" not in source.asked[0]
    assert source.asked[1]["if-none-match"] == '"v1"'


@pytest.mark.parametrize("api", [{"error": "nope"}, [], {"a": 1}])
def test_an_answer_that_is_no_catalogue_changes_nothing(source, api) -> None:
    refresh(paths(), url=source.url, today="2099-01-01")
    paths().catalogue.write_bytes(pack(small_api(), date="2099-01-01", etag='"older"'))
    source.api = api
    with pytest.raises(UpstreamError) as caught:
        refresh(paths(), url=source.url)
    assert caught.value.code == "upstream-protocol"
    assert catalogue_date() == "2099-01-01"


def test_a_failing_server_and_none_at_all_are_told_apart(source) -> None:
    source.status = 503
    with pytest.raises(UpstreamError) as caught:
        refresh(paths(), url=source.url)
    assert (caught.value.code, "503" in caught.value.message) == ("upstream-protocol", True)
    source.close()
    with pytest.raises(UpstreamError) as caught:
        refresh(paths(), url=source.url)
    assert caught.value.code == "upstream-unreachable"
    assert open_catalogue(paths(), Settings(), {}).is_bundled


def test_asking_is_due_once_a_day_whether_it_worked_or_not(source) -> None:
    assert is_due(paths())
    source.status = 500
    with pytest.raises(UpstreamError):
        refresh(paths(), url=source.url)
    assert not is_due(paths())
    asked_s = (paths().cache / "catalogue.asked").stat().st_mtime
    assert not is_due(paths(), now_s=asked_s + EVERY_S - 1)
    assert is_due(paths(), now_s=asked_s + EVERY_S)
    assert is_due(paths(), now_s=asked_s - 10), "a clock that was wrong does not stop it for ever"


async def test_the_off_switch_and_a_fresh_answer_start_no_process(
    monkeypatch, source, tmp_path
) -> None:
    started = tmp_path / "started"
    monkeypatch.setattr(refreshing, "COMMAND", python(f"open({str(started)!r}, 'w')"))
    background = BackgroundRefresh()
    await background.start(paths(), replace(Settings(), catalog=CatalogSettings(refresh=False)))
    refresh(paths(), url=source.url)
    await background.start(paths(), Settings())
    await background.stop()
    assert not started.exists()


async def test_a_process_that_cannot_be_started_is_done_without(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(refreshing, "COMMAND", (str(tmp_path / "no-such-program"),))
    background = BackgroundRefresh()
    await background.start(paths(), Settings())
    await background.stop()


def test_a_process_that_still_fetches_is_gone_after_stop(monkeypatch, tmp_path, runner) -> None:
    told = tmp_path / "pid"
    monkeypatch.setattr(refreshing, "COMMAND", telling_its_number(told, "time.sleep(600)"))

    async def serve() -> None:
        background = BackgroundRefresh()
        await background.start(paths(), Settings())
        child = await number_in(told)
        await background.stop()
        await background.stop()
        assert not is_listed(child)

    runner.run(serve())


def test_a_process_that_has_ended_leaves_nothing_behind_while_the_gateway_serves(
    monkeypatch, tmp_path, runner
) -> None:
    """A dead child that nobody asked for its status stays listed until its parent ends."""
    told = tmp_path / "pid"
    monkeypatch.setattr(refreshing, "COMMAND", telling_its_number(told))

    async def serve() -> None:
        await (background := BackgroundRefresh()).start(paths(), Settings())
        child = await number_in(told)
        async with asyncio.timeout(TIMEOUT_S):
            while is_listed(child):
                await asyncio.sleep(0.01)
        await background.stop()

    runner.run(serve())


def test_the_child_process_does_the_same_and_says_nothing(source, capfd) -> None:
    assert refreshing.main(source.url) == 0
    assert not open_catalogue(paths(), Settings(), {}).is_bundled
    source.close()
    os.unlink(paths().catalogue)
    assert refreshing.main(source.url) == 1
    assert capfd.readouterr() == ("", "")
