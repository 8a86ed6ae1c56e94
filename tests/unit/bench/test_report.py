"""The page about performance says what the figures say."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import rivals
from bench.aims import aims, losses
from bench.report import DOCS, FIGURES, PICTURE, missing, page, picture

_ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def figures() -> Any:
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_page_and_its_picture_are_those_of_the_figures(figures: Any) -> None:
    assert (DOCS / "performance.md").read_text(encoding="utf-8") == page(figures)
    assert (DOCS / PICTURE).read_text(encoding="utf-8") == picture(figures)


def test_where_another_is_faster_the_page_says_so(figures: Any) -> None:
    changed = copy.deepcopy(figures)
    cell = changed["sequential"]["plain, 8 kB"]["ways"]
    cell["ferrogw"]["whole"]["added_p50_s"] = cell["ogate"]["whole"]["added_p50_s"] / 2
    told = [loss for loss in losses(changed) if loss.way == "ferrogw"]
    assert any(loss.what == "adds less in “plain, 8 kB” (median)" for loss in told)
    assert "- ferrogw adds less in “plain, 8 kB” (median): " in page(changed)


@pytest.mark.parametrize(("times", "is_met"), [(2.5, True), (2.6, False)])
def test_an_aim_is_met_up_to_its_bound(figures: Any, times: float, is_met: bool) -> None:
    changed = copy.deepcopy(figures)
    ours = changed["sequential"]["streamed, 8 kB"]["ways"]["ogate"]["first"]
    ours["times_nginx_p50"] = [times, times, times]
    found = {aim.name: aim for aim in aims(changed)}
    assert found["streamed, 8 kB: first content, median"].is_met is is_met


def test_what_was_left_out_is_named_with_the_reason(figures: Any) -> None:
    changed = copy.deepcopy(figures)
    changed["absent"] = {"portkey": "does not install here: no such package"}
    changed["sequential"]["plain, 8 kB"]["absent"] = {"litellm": "connection closed"}
    told = missing(changed)
    assert "- Portkey: does not install here: no such package" in told
    assert "- LiteLLM in “plain, 8 kB”: connection closed" in told


def test_the_versions_told_are_those_installed() -> None:
    script = (_ROOT / "scripts" / "install_rivals.sh").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"\b(ferrogw|tensorzero)==([\d.]+)", script))
    pinned |= dict(re.findall(r"(litellm)\[proxy\]==([\d.]+)", script))
    pinned |= dict(re.findall(r'@(portkey)-ai/gateway": "([\d.]+)"', script))
    assert pinned == rivals.VERSIONS
