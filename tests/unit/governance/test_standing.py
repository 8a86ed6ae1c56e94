"""How budgets stand: the right window, the right owners, and thresholds as they are reached."""

from decimal import Decimal

import pytest

from opencode_gate.core.local_time import day_start_us, local_day
from opencode_gate.governance.policy import Budget, Owner, Rules, Team, VirtualKey
from opencode_gate.governance.standing import Above, BudgetStanding, above_session, standings_above
from opencode_gate.ledger.governance_store import Standing, WindowKey
from tests.support.governance_fake import GovernanceFake
from tests.support.ledger_records import NOON_US, a_session, an_exchange

USD = 10**9
DAY_US = 86_400_000_000
ZONE = "Europe/Berlin"
ADA = Owner("user", "ada")
TODAY_US = day_start_us(local_day(NOON_US, ZONE), ZONE)


def usd(amount: str, window: str = "day", **more: object) -> Budget:
    return Budget(window=window, usd=Decimal(amount), **more)  # type: ignore[arg-type]


def a_standing(spent: int, budget: Budget | None = None) -> BudgetStanding:
    return BudgetStanding(
        owner=ADA,
        budget=usd("20") if budget is None else budget,
        start_us=TODAY_US,
        resets_at_us=TODAY_US + DAY_US,
        time_zone=ZONE,
        spent=spent,
        held=0,
    )


def test_all_budgets_above_a_request_nearest_owner_first() -> None:
    """Session, user, key, team: each with its own window and its own money."""
    store = GovernanceFake()
    store.give(Owner("session", "01S"), Rules(budgets=(usd("5", "session"),)))
    store.give(ADA, Rules(budgets=(usd("20"), usd("100", "month"))))
    store.give(Owner("user", "bob"), Rules(budgets=(usd("1"),)))
    store.give(Owner("vkey", "ci"), VirtualKey(public_id="p", secret_hash="h", team="core"))
    store.give(Owner("team", "core"), Team(budgets=(Budget(window="total", tokens=1000),)))
    store.money = {
        WindowKey("session:01S/session/usd", 0): Standing(2_190_000_000, 400_000_000),
        WindowKey("user:ada/day/usd", TODAY_US): Standing(6 * USD),
        WindowKey("user:ada/day/usd", TODAY_US - DAY_US): Standing(19 * USD),
        WindowKey("team:core/total/tokens", 0): Standing(700),
    }
    above = Above(session_id="01S", user="ada", virtual_key="ci")
    found = standings_above(store, [above], at_us=NOON_US, time_zone=ZONE)
    assert [(str(one.owner), one.budget.window, one.spent, one.left) for one in found] == [
        ("session 01S", "session", 2_190_000_000, 2_410_000_000),
        ("user ada", "day", 6 * USD, 14 * USD),
        ("user ada", "month", 0, 100 * USD),
        ("team core", "total", 700, 300),
    ]
    assert (found[1].start_us, found[1].resets_at_us) == (TODAY_US, TODAY_US + DAY_US)
    assert found[0].resets_at_us is None


def test_what_two_sessions_share_is_there_once() -> None:
    """A user's budget stands above all of the user's sessions."""
    store = GovernanceFake()
    store.give(ADA, Rules(budgets=(usd("20"),)))
    above = [Above(session_id="01S", user="ada"), Above(session_id="01T", user="ada")]
    assert len(standings_above(store, above, at_us=NOON_US, time_zone=ZONE)) == 1


def test_the_owners_own_zone_decides_what_today_is() -> None:
    """A team in Tokyo is a day ahead of Berlin in the evening."""
    store = GovernanceFake()
    store.give(ADA, Rules(time_zone="Asia/Tokyo", budgets=(usd("20"),)))
    evening_us = NOON_US + 8 * 3_600_000_000
    [one] = standings_above(store, [Above(user="ada")], at_us=evening_us, time_zone=ZONE)
    assert one.start_us == day_start_us(local_day(evening_us, "Asia/Tokyo"), "Asia/Tokyo")


def test_a_clock_that_was_set_back_opens_no_window_again() -> None:
    """What was spent in a later day counts until that day is over."""
    store = GovernanceFake()
    store.give(ADA, Rules(budgets=(usd("20"),)))
    store.money = {WindowKey("user:ada/day/usd", TODAY_US + DAY_US): Standing(19 * USD)}
    [one] = standings_above(store, [Above(user="ada")], at_us=NOON_US, time_zone=ZONE)
    assert (one.spent, one.start_us) == (19 * USD, TODAY_US + DAY_US)


def test_without_rules_nothing_is_asked() -> None:
    """Most people have none: one look at the revision is all that costs."""

    class Untouched(GovernanceFake):
        def policy(self):
            raise AssertionError("the documents were read")

    assert standings_above(Untouched(), [Above(user="ada")], at_us=0, time_zone=ZONE) == ()


@pytest.mark.parametrize(
    ("spent", "percent", "warned"),
    [(0, 0, None), (9_999_999_999, 49, None), (10 * USD, 50, 50), (16 * USD, 80, 80),
     (18_999_999_999, 94, 80), (19 * USD, 95, 95), (20 * USD, 100, 95), (21 * USD, 105, 95)],
)  # fmt: skip
def test_a_threshold_is_reached_exactly_there(spent: int, percent: int, warned: int | None) -> None:
    """Shares are rounded down, so that no warning comes early."""
    one = a_standing(spent)
    assert (one.percent, one.warned_percent, one.is_spent) == (percent, warned, spent >= 20 * USD)


def test_a_budget_of_nothing_is_spent() -> None:
    """Nothing divides by zero."""
    one = a_standing(0, usd("0"))
    assert (one.percent, one.is_spent, one.left) == (100, True, 0)


def test_thresholds_are_the_budgets_own() -> None:
    """Who wants to be warned at 10 % is, and who wants no warning gets none."""
    assert a_standing(3 * USD, usd("20", warn_at_percent=(10,))).warned_percent == 10
    assert a_standing(19 * USD, usd("20", warn_at_percent=())).warned_percent is None


def test_above_a_gateway_for_many_are_the_sessions_and_keys_of_all_it_serves() -> None:
    """Each pair once; without any request, the session itself."""
    session = a_session(id="01SERVE", user="ada")
    asked = [
        an_exchange(session_id=id, virtual_key=key)
        for id, key in (("01B", "ben"), ("01A", "ann"), ("01A", "ann"), ("01SERVE", None))
    ]
    assert [(one.session_id, one.virtual_key) for one in above_session(session, asked)] == [
        ("01A", "ann"),
        ("01B", "ben"),
        ("01SERVE", None),
    ]
    assert above_session(session, []) == [Above(session_id="01SERVE", user="ada")]
