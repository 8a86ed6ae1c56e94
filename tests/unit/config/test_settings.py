"""What the user decided, read strictly: file < environment < flag, and every mistake named."""

from datetime import date
from decimal import Decimal

import pytest

from opencode_gate.config.paths import paths
from opencode_gate.config.price_settings import PriceSettings, PriceTierSettings
from opencode_gate.config.settings import (
    Settings,
    load_settings,
    parse_settings,
)
from opencode_gate.core.errors import ConfigError


def put_file(text: str) -> None:
    file = paths().config_file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_without_a_file_everything_has_its_default() -> None:
    assert load_settings(paths(), {}) == Settings()


def test_the_environment_beats_the_file() -> None:
    put_file('[run]\nsummary = "json"\nkeep_env = true\n[catalog]\nrefresh = false\n')
    environ = {"OGATE_RUN_SUMMARY": "off", "OGATE_CATALOG_REFRESH": "yes", "OGATE_HOME": "/x"}
    settings = load_settings(paths(), environ)
    assert settings.run.summary == "off"
    assert settings.run.keep_env is True
    assert settings.catalog.refresh is True


def test_a_whole_file_is_read_to_the_last_key() -> None:
    settings = parse_settings(
        """
        [run]
        agent_path = "/opt/opencode"
        [pricing]
        on_unknown_price = "block"
        [providers.mine]
        base_url = "http://127.0.0.1:9/v1"
        wire = "anthropic"
        keyless = true
        auth_header = "x-key"
        headers = { x-team = "a", cf = "Bearer {env:CF}" }
        stream_usage = "never"
        subscription = "key"
        variables = { HOST = "h" }
        [providers.mine.models."org/m:free"]
        context = 1000
        tool_call = false
        [prices."mine/org/m:free"]
        input = 0.1
        output = 2
        """,
        source="f",
    )
    mine = settings.providers["mine"]
    assert (mine.base_url, mine.wire, mine.keyless) == ("http://127.0.0.1:9/v1", "anthropic", True)
    assert mine.headers == {"x-team": "a", "cf": "Bearer {env:CF}"}
    assert mine.models["org/m:free"].context == 1000
    assert settings.run.agent_path == "/opt/opencode"
    assert settings.prices["mine/org/m:free"] == (
        PriceSettings(input=Decimal("0.1"), output=Decimal(2)),
    )


def test_a_price_keeps_the_digits_it_was_written_with() -> None:
    settings = parse_settings('[prices."a/b"]\ninput = 0.1234567890123456789\n', source="f")
    assert settings.prices["a/b"][0].input == Decimal("0.1234567890123456789")


def test_prices_of_several_spans_and_their_tiers_are_read() -> None:
    settings = parse_settings(
        """
        [[prices."a/b"]]
        until = 2026-10-31
        input = 1
        [[prices."a/b"]]
        since = "2026-11-01"
        input = 2
        [[prices."a/b".tiers]]
        above_input_tokens = 200_000
        input = 4
        """,
        source="f",
    )
    assert settings.prices["a/b"] == (
        PriceSettings(until=date(2026, 10, 31), input=Decimal(1)),
        PriceSettings(
            since=date(2026, 11, 1),
            input=Decimal(2),
            tiers=(PriceTierSettings(above_input_tokens=200_000, input=Decimal(4)),),
        ),
    )


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ('[run]\nsumary = "json"', 2, "run.sumary", "did you mean summary?"),
        ('[run]\n\nsummary = "xml"', 3, "run.summary", "table, json, off"),
        ("[run]\nkeep_env = 1", 2, "run.keep_env", "true or false"),
        ("[runn]\nx = 1", 1, "runn", "did you mean run?"),
        ('[providers.a]\nbase_url = "ftp://h"', 2, "providers.a.base_url", "https://"),
        (
            '[providers.a]\nbase_url = "https://u:p@h/v1"',
            2,
            "providers.a.base_url",
            "ogate keys add",
        ),
        ('[providers."A b"]\nname = "x"', 1, 'providers."A b"', "small letters"),
        ('[providers.a.headers]\n"b d" = "x"', 1, "providers.a.headers", "header"),
        ('[providers.a.headers]\nb = "x\\r\\ny"', 1, "providers.a.headers", "line break"),
        ("[providers.a]\nmodels = 3", 2, "providers.a.models", "table"),
        ('[prices."a/b"]\ninput = -1', 2, 'prices."a/b".input', "from 0 up"),
        ('[prices."a/b"]\ninput = nan', 2, 'prices."a/b".input', "from 0 up"),
        ("[prices.ab]\ninput = 1", 1, "prices.ab", "provider/model"),
        ('[prices."a/b"]\nsince = 2026', 2, 'prices."a/b".since', "2026-11-01"),
        ('[prices."a/b"]\nsince = "soon"', 2, 'prices."a/b".since', "2026-11-01"),
        ('[prices."a/b"]\nsince = 2026-11-01T12:00:00', 2, 'prices."a/b".since', "2026-11-01"),
        (
            '[prices."a/b"]\ninput = 1\nsince = 2026-11-02\nuntil = 2026-11-01',
            4,
            'prices."a/b".until',
            "before it begins",
        ),
        (
            '[[prices."a/b"]]\nuntil = 2026-11-01\n\n[[prices."a/b"]]\nsince = 2026-11-01',
            4,
            'prices."a/b"[1]',
            "2026-11-01",
        ),
        (
            '[[prices."a/b"]]\nuntil = 2026-11-01\n[[prices."a/b"]]\nsince=2026-11-02\ninpt=1',
            5,
            'prices."a/b"[1].inpt',
            "did you mean input?",
        ),
        (
            '[[prices."a/b"]]\nuntil = 2026-11-01\n[[prices."a/b".tiers]]\n'
            'above_input_tokens = 5\n[[prices."a/b"]]\nsince = 2026-11-02\n'
            '[[prices."a/b".tiers]]\nabove_input_tokens = 5\n'
            '[[prices."a/b".tiers]]\nabove_input_tokens = "6"',
            10,
            'prices."a/b"[1].tiers[1].above_input_tokens',
            "whole number",
        ),
        (
            '[prices."a/b"]\ninput = 1\n[[prices."a/b".tiers]]\ninput = 2',
            3,
            'prices."a/b".tiers[0]',
            "above_input_tokens",
        ),
        (
            '[prices."a/b"]\ntiers = [{above_input_tokens = 5}, {above_input_tokens = 5}]',
            2,
            'prices."a/b".tiers',
            "two tiers",
        ),
        ('[prices]\n"a/b" = 3', 2, 'prices."a/b"', "table"),
    ],
)
def test_a_mistake_is_named_with_line_key_and_what_would_be_right(text, line, key, says) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, source="/c/config.toml")
    error = caught.value
    assert error.code == "bad-config"
    assert error.message.startswith(f"/c/config.toml, line {line}: {key} ")
    assert says in f"{error.message} {error.hint}"


def test_text_that_is_no_toml_is_refused_with_its_place() -> None:
    put_file("[run\n")
    with pytest.raises(ConfigError, match=r"config\.toml is not TOML: .*line 1"):
        load_settings(paths(), {})


def test_a_file_that_is_not_text_is_a_clear_error() -> None:
    put_file("")
    paths().config_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(paths(), {})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OGATE_RUN_SUMARY", "json", "did you mean run.summary?"),
        ("OGATE_RUN_SUMMARY", "xml", "table, json, off"),
        ("OGATE_RUN_KEEP_ENV", "perhaps", "true or false"),
    ],
)
def test_a_wrong_variable_is_named_like_a_wrong_key(name, value, says) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(paths(), {name: value})
    assert caught.value.message.startswith(name)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_variables_of_other_purposes_are_let_alone() -> None:
    environ = {"OGATE_KEY": "x", "OGATE_HOME": "y", "OGATE_TEST_OPENCODE": "z"}
    assert load_settings(paths(), environ) == Settings()


@pytest.mark.parametrize(("text", "days"), [("0", 0), ("7", 7)])
def test_how_long_parts_are_kept_can_be_set(text, days) -> None:
    """In the file and by a variable; less than nothing is refused."""
    put_file(f"[ledger]\nkeep_parts_days = {text}\n")
    assert load_settings(paths(), {}).ledger.keep_parts_days == days
    changed = load_settings(paths(), {"OGATE_LEDGER_KEEP_PARTS_DAYS": "9"})
    assert changed.ledger.keep_parts_days == 9
    with pytest.raises(ConfigError, match="from 0 up"):
        load_settings(paths(), {"OGATE_LEDGER_KEEP_PARTS_DAYS": "-1"})
