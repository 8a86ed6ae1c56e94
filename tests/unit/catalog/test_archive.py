"""The catalogue's zip: the same bytes for the same input, whole or refused."""

import pytest

from opencode_gate.catalog.archive import Archive, BadCatalogue, pack
from opencode_gate.catalog.catalogue import BUNDLED
from tests.support.small_catalogue import plain_model, small_api


def test_the_same_input_makes_the_same_bytes_in_any_order() -> None:
    api = small_api()
    assert pack(api) == pack(dict(reversed(api.items())))


def test_the_bundled_catalogue_holds_all_of_models_dev() -> None:
    archive = Archive(BUNDLED)
    entries = archive.providers()
    assert archive.meta.date == "2026-09-28"
    assert len(entries) == 225
    assert sum(len(archive.models(entry["id"])) for entry in entries) == 8261
    assert len(archive.names().splitlines()) == 8261


def test_its_date_is_that_of_its_newest_entry(tmp_path) -> None:
    api = small_api(a={"models": {"m": plain_model("m", last_updated="2026-05-06")}})
    assert archive_of(tmp_path, pack(api)).meta.date == "2026-05-06"
    assert archive_of(tmp_path, pack(api, date="2026-07-08", etag='"x"')).meta.etag == '"x"'


def test_an_entry_keeps_every_field_of_its_models(tmp_path) -> None:
    odd = plain_model("org/m:free", experimental={"modes": {"x": 1}}, name="Grüße")
    archive = archive_of(tmp_path, pack(small_api(a={"models": {"org/m:free": odd}})))
    assert archive.models("a") == {"org/m:free": odd}
    assert archive.models("nobody") == {}


def test_addresses_of_single_models_are_gathered_by_wire_format(tmp_path) -> None:
    own = {"npm": "@ai-sdk/anthropic", "api": "https://h/anthropic/v1"}
    same = {"npm": "@ai-sdk/openai", "api": "https://a.example/v1"}
    models = {
        "c": plain_model("c", provider=own),
        "o": plain_model("o", provider=same),
        "m": plain_model("m"),
    }
    entry = next(
        one
        for one in archive_of(tmp_path, pack(small_api(a={"models": models}))).providers()
        if one["id"] == "a"
    )
    assert entry["wire_bases"] == {"anthropic": "https://h/anthropic/v1"}
    assert entry["model_count"] == 3


@pytest.mark.parametrize("api", [[], None, {}, {"a": {"models": {}}}, {"error": "rate limited"}])
def test_what_is_no_catalogue_is_not_packed(api) -> None:
    with pytest.raises(BadCatalogue):
        pack(api)


def test_a_damaged_entry_costs_only_itself(tmp_path) -> None:
    api = small_api(good={}) | {"bad": {"id": "bad"}, "worse": 3, "a/b": small_api()["plain-00"]}
    ids = {entry["id"] for entry in archive_of(tmp_path, pack(api)).providers()}
    assert "good" in ids
    assert not ids & {"bad", "worse"}


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_file_cut_anywhere_is_refused(tmp_path, cut) -> None:
    with pytest.raises(BadCatalogue):
        archive_of(tmp_path, pack(small_api())[:cut])


def test_damaged_models_are_refused_as_the_rest_is(tmp_path) -> None:
    """A disk that rots does so anywhere in the file."""
    content = bytearray(pack(small_api(a={})))
    name = b"models/a.json"
    content[content.index(name) + len(name)] ^= 0xFF
    archive = archive_of(tmp_path, bytes(content))
    assert archive.models("plain-00") != {}
    with pytest.raises(BadCatalogue):
        archive.models("a")


def test_a_file_that_is_not_there_is_told_apart(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        Archive(tmp_path / "none.zip")


def archive_of(folder, content: bytes) -> Archive:
    file = folder / "catalogue.zip"
    file.write_bytes(content)
    return Archive(file)
