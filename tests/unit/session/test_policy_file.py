"""The policy file: it says what the rules say, keeps its comments, and names line and key."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opencode_gate.core.errors import ConfigError
from opencode_gate.governance.policy import Budget, Policy, Rules, Team
from opencode_gate.session.policy_file import is_same, parse_policy
from opencode_gate.session.policy_writing import policy_text
from tests.support.policies import PUBLIC_ID, SECRET_HASH, policies, some_policy

NOW_US = 1_763_700_000_000_000
MANY = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


def read(text, former=None) -> Policy:
    return parse_policy(text, source="rules.toml", at_us=NOW_US, former=former)


def refusal(text) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.code == "bad-policy"
    return caught.value


@given(policies())
@MANY
def test_what_is_written_reads_back_as_the_same_rules(policy) -> None:
    assert is_same(read(policy_text(policy)), policy)


@given(policies())
@MANY
def test_writing_into_a_file_that_says_it_already_changes_no_byte(policy) -> None:
    text = policy_text(policy)
    assert policy_text(policy, into=text) == text


@given(policies(), policies())
@MANY
def test_a_file_of_other_rules_comes_to_say_these(before, after) -> None:
    text = policy_text(before)
    try:
        changed = policy_text(after, into=text)
    except ConfigError as error:
        pytest.fail(f"{error.message} {error.details}")
    assert is_same(read(changed), after)


COMMENTED = """\
# Agreed with finance.
[teams.core] # the core team
time_zone = "Europe/Berlin"

# per month
[[teams.core.budgets]]
window = "month" # calendar
usd = "$1,500" # raised in May

[[teams.core.budgets]]
window = "day"
usd = 5e1
"""


def core(*budgets) -> Policy:
    return Policy(teams={"core": Team(time_zone="Europe/Berlin", budgets=budgets)})


def test_comments_and_the_users_own_way_of_writing_stay() -> None:
    day = Budget(window="day", usd=Decimal(50))
    text = policy_text(core(Budget(window="month", usd=Decimal(1600)), day), into=COMMENTED)
    assert text == COMMENTED.replace('"$1,500"', "1600")


def test_a_budget_that_is_gone_takes_only_its_own_table_along() -> None:
    text = policy_text(core(Budget(window="month", usd=Decimal(1500))), into=COMMENTED)
    assert text == COMMENTED[: COMMENTED.index('[[teams.core.budgets]]\nwindow = "day"')]


def test_a_new_budget_comes_behind_the_others() -> None:
    budgets = (
        Budget(window="month", usd=Decimal(1500)),
        Budget(window="day", usd=Decimal(50)),
        Budget(window="hour", tokens=1000),
    )
    text = policy_text(core(*budgets), into=COMMENTED)
    assert text.startswith(COMMENTED)
    assert text[len(COMMENTED) :] == '\n[[teams.core.budgets]]\nwindow = "hour"\ntokens = 1000\n'


def test_an_inline_list_stays_one_where_nothing_in_it_changes() -> None:
    text = 'teams.core.budgets = [{window="day", usd=5.0}] # short\n'
    policy = Policy(teams={"core": Team(budgets=(Budget(window="day", usd=Decimal(5)),))})
    assert policy_text(policy, into=text) == text


def test_a_file_that_is_no_toml_is_not_written_into() -> None:
    with pytest.raises(ConfigError) as caught:
        policy_text(some_policy(), into="teams = [", source="rules.toml")
    assert "rules.toml" in caught.value.message


VKEY = f'[vkeys.anna]\npublic_id = "{PUBLIC_ID}"\nsecret_hash = "{SECRET_HASH}"\n'
BUDGET = "[[teams.core.budgets]]\n"
BAD = {
    "[teams.core": "rules.toml is not TOML: Expected ']'",
    "[team.core]\n": "line 1: team is not a table of a policy",
    "\nteams = 5\n": "line 2: teams is tables, written [teams.NAME]",
    "[teams]\ncore = 5\n": "line 2: teams.core is a table, written [teams.core]",
    "[teams.core]\n\nbudget = []\n": "line 3: teams.core.budget is not a key of a policy",
    "[teams.core]\npublic_id = 'x'\n": "line 2: teams.core.public_id is not a key of a policy",
    "[teams.core]\ncustomer = 'acme'\n": "line 2: teams.core.customer is 'acme', and there is no",
    "[teams.core]\ncustomer = 5\n": "line 2: teams.core.customer is text in quotes, not 5",
    "[teams.core]\ntime_zone = 'Berlin'\n": "line 2: teams.core.time_zone 'Berlin' is no time zone",
    "[teams.core]\ntime_zone = '../etc'\n": "line 2: teams.core.time_zone '../etc' is no time",
    "[teams.'a b']\n": "line 1: teams.\"a b\" cannot be called so: the name has the character ' '",
    '[teams."x\'; DROP TABLE charges;--"]\n': "cannot be called so: the name has the character",
    "[teams.'']\n": "the name has 0 characters",
    f"[teams.{'x' * 65}]\n": "the name has 65 characters",
    "[teams.-x]\n": "begins with neither a letter nor a digit",
    "[teams.core.models]\nallow = []\n": "line 1: teams.core.models does not make sense: an empty",
    "[teams.core]\nmodels.allow = 'a/*'\n": "line 2: teams.core.models.allow is a list, written",
    "[teams.core.models]\ndeny = ['']\n": "line 2: teams.core.models.deny[0] '' matches no model",
    "[teams.core.models]\nmode = 'off'\n": "models.mode is one of enforce, shadow, not 'off'",
    "[teams.core.budgets]\nwindow = 'day'\n": "line 1: teams.core.budgets may be there several",
    f"{BUDGET}usd = 5\n": "line 1: teams.core.budgets[0] needs the key window",
    f"{BUDGET}window = 'day'\n": "line 1: teams.core.budgets[0] does not make sense: a budget has",
    f"{BUDGET}window = 'daily'\nusd = 5\n": "line 2: teams.core.budgets[0].window is one of",
    f"{BUDGET}window = 'day'\nusd = true\n": "line 3: teams.core.budgets[0].usd is an amount",
    f"{BUDGET}window = 'day'\nusd = '5,50'\n": "line 3: teams.core.budgets[0].usd is an amount",
    f"{BUDGET}window = 'day'\nusd = -1\n": "line 1: teams.core.budgets[0] does not make sense",
    f"{BUDGET}window = 'day'\nusd = nan\n": "line 1: teams.core.budgets[0] does not make sense",
    f"{BUDGET}window = 'day'\nusd = inf\n": "line 1: teams.core.budgets[0] does not make sense",
    f"{BUDGET}window = 'day'\nusd = 2e9\n": "line 3: teams.core.budgets[0].usd is more than",
    f"{BUDGET}window = 'day'\nusd = 1e-10\n": "line 3: teams.core.budgets[0].usd is finer",
    f"{BUDGET}window = 'day'\ntokens = 5.5\n": "line 3: teams.core.budgets[0].tokens is a whole",
    f"{BUDGET}window = 'day'\ntokens = {10**16}\n": "tokens is more than can be counted",
    f"{BUDGET}window = 'session'\nusd = 5\n": "line 2: teams.core.budgets[0].window is session",
    f"{BUDGET}window = 'day'\nusd = 5\nat_end = 'stop'\n": "at_end is block, warn or downgrade",
    f"{BUDGET}window = 'day'\nusd = 5\nat_end = 'downgrade:'\n": "line 4: teams.core.budgets[0].at",
    f"{BUDGET}window = 'day'\nusd = 5\nwarn_at_percent = [0]\n": "line 4: teams.core.budgets[0].wa",
    f"{BUDGET}window = 'day'\nusd = 5\n{BUDGET}window = 'day'\nusd = 6\n": "line 4: teams.core.bud",
    f"{BUDGET}window = 'total'\nusd = 5\nrolling = true\n": "a rolling budget has since_us",
    "[[teams.core.limits]]\nrequests = 5\n": "line 1: teams.core.limits[0] does not make sense",
    "[[teams.core.limits]]\nrequests = 0\nper = 'day'\n": "a limit is a number from 1 on",
    "[[teams.core.limits]]\nper = 'year'\n": "line 2: teams.core.limits[0].per is one of minute",
    f"{VKEY}team = 'core'\n": "line 4: vkeys.anna.team is 'core', and there is no such team",
    f"{VKEY}active = 'yes'\n": "line 4: vkeys.anna.active is true or false, not 'yes'",
    f"{VKEY}expires_at = 2026-12-31\n": "line 4: vkeys.anna.expires_at is text in quotes, not 2026",
    f"{VKEY}expires_at = 2026-12-31T00:00:00\n": "line 4: vkeys.anna.expires_at '2026-12-31T00:00",
    f"{VKEY}expires_at = 'soon'\n": "line 4: vkeys.anna.expires_at 'soon' is not a time with its",
    f"{VKEY}tags = ['']\n": "line 4: vkeys.anna.tags[0] '' is no word",
    f"{VKEY}{VKEY.replace('anna', 'ben')}": "line 5: vkeys.ben.public_id is that of anna too",
    VKEY.replace(PUBLIC_ID, "x"): "line 2: vkeys.anna.public_id is the twelve",
    VKEY.replace(SECRET_HASH, "ogk-secret"): "line 3: vkeys.anna.secret_hash is not what",
    "[vkeys.anna]\n": "line 1: vkeys.anna needs the key public_id",
    "[sessions.x]\n": "line 1: sessions is not part of a policy file",
}


@pytest.mark.parametrize("text", BAD)
def test_a_mistake_is_named_with_its_line_and_key(text) -> None:
    error = refusal(text)
    assert BAD[text] in error.message
    assert error.message.startswith("rules.toml")


def test_a_near_miss_is_told_the_right_word() -> None:
    assert refusal("[teams.core]\nbudgts = []\n").hint == "did you mean budgets?"
    assert refusal("[team.core]\n").hint == "did you mean teams?"
    assert refusal("[teams.core]\n[vkeys.a]\nteams = 1").hint == "did you mean team?"


def test_several_mistakes_are_all_told() -> None:
    error = refusal("[teams.a]\nx = 1\n[teams.b]\ny = 1\n")
    assert "teams.a.x" in error.message
    assert [detail.partition(" is")[0] for detail in error.details] == [
        "rules.toml, line 4: teams.b.y"
    ]


ROLLING = "[[users.root.budgets]]\nwindow = 'day'\nusd = 5\nrolling = true\n"


def test_a_rolling_budget_begins_when_it_is_made() -> None:
    [budget] = read(ROLLING).users["root"].budgets
    assert budget.since_us == NOW_US


def test_a_rolling_budget_that_is_there_goes_on() -> None:
    former = Budget(window="day", usd=Decimal(4), rolling=True, since_us=77)
    policy = Policy(users={"root": Rules(budgets=(former,))})
    [budget] = read(ROLLING, former=policy).users["root"].budgets
    assert budget == msgspec.structs.replace(former, usd=Decimal(5))


def test_an_accent_written_in_two_ways_is_one_name() -> None:
    composed, parts = "zo\u00eb", "zoe\u0308"
    assert list(read(f'[teams."{parts}"]\n').teams) == [composed]
    assert "is there twice" in refusal(f'[teams."{parts}"]\n[teams."{composed}"]\n').message


def test_an_owner_that_loses_its_last_table_is_still_there() -> None:
    budget = Budget(window="day", usd=Decimal(5))
    text = policy_text(Policy(users={"a": Rules(budgets=(budget,)), "b": Rules()}))
    after = Policy(users={"a": Rules(), "b": Rules()})
    assert is_same(read(policy_text(after, into=text)), after)


STYLES = [
    'teams = {core = {budgets = [{window = "day", usd = 1}]}}\n',
    '[teams]\ncore = {budgets = [{window = "day", usd = 1}]}\n',
    'teams.core.budgets = [{window = "day", usd = 1}]\n',
    '[teams.core]\nbudgets = [\n  # a day\n  {window = "day", usd = 1},\n]\n',
    '[[teams.core.budgets]]\nwindow = "day"\nusd = 1\n\n[users.x]\n\n[teams.other]\n',
    '["teams"."core"]\n"budgets" = [{"window" = "day", "usd" = 0x1}]\n',
    "[[teams.core.budgets]]\r\nwindow = 'day'\r\nusd = 1_0e-1\r\n",
]


@pytest.mark.parametrize("text", STYLES)
def test_a_file_in_any_style_can_be_written_into_or_is_left_alone(text) -> None:
    before = read(text)
    assert before.teams["core"].budgets == (Budget(window="day", usd=Decimal(1)),)
    assert policy_text(before, into=text) == text
    for after in (core(Budget(window="day", usd=Decimal(2))), core(), some_policy()):
        try:
            assert is_same(read(policy_text(after, into=text)), after)
        except ConfigError as error:
            assert "cannot be changed in place" in error.message


def test_comments_inside_a_list_stay_when_a_table_in_it_changes() -> None:
    text = (
        "[teams.core]\ntime_zone = 'Europe/Berlin'\nbudgets = [\n"
        '  # a day\n  {window = "day", usd = 1}, # small\n'
        '  # a month\n  {window = "month", usd = 9},\n]\n'
    )
    month = Budget(window="month", usd=Decimal(9))
    after = core(Budget(window="day", usd=Decimal(2)), month)
    assert policy_text(after, into=text) == text.replace("usd = 1}", "usd = 2}")
    more = core(Budget(window="day", usd=Decimal(1)), month, Budget(window="hour", tokens=5))
    assert "# a day" in policy_text(more, into=text)
    assert "# small" in policy_text(more, into=text)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
@MANY
def test_any_text_is_rules_or_refused(text) -> None:
    try:
        read(text)
    except ConfigError as error:
        assert error.code == "bad-policy"


WORDS = [
    *(
        "[teams.core]",
        "[[teams.core.budgets]]",
        "[vkeys.a]",
        "[users.'x; DROP TABLE y']",
        "[teams]",
    ),
    *("window = 'day'", "usd = 5", "usd = '5'", "usd = 99999999999999999999", "tokens = -1"),
    *("models = 5", "models.allow = [[]]", "budgets = [[]]", "limits = [{}]", "rolling = true"),
    *("since_us = 1e400", "expires_at = 2026-13-01", "expires_at = 07:32:00", "tags = [1]"),
    *("team = 'core'", "public_id = 'x'", "time_zone = '\\u0000'", "time_zone = '/etc/passwd'"),
    *("teams.core = 1", "active = 1", "warn_at_percent = [101, 'x']", "at_end = ''", "= 1"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=8).map("\n".join))
@settings(MANY, max_examples=100)
def test_any_lines_put_together_are_rules_or_refused(text) -> None:
    try:
        found = read(text)
    except ConfigError as error:
        assert error.code == "bad-policy"
    else:
        assert is_same(read(policy_text(found)), found)
