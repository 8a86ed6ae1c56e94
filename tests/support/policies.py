"""Policies for tests: one of everything, and any at all."""

from decimal import Decimal

from hypothesis import strategies as st

from opencode_gate.governance.policy import (
    Budget,
    Customer,
    ModelRules,
    Policy,
    RateLimit,
    Rules,
    Team,
    VirtualKey,
)

PUBLIC_ID = "abcDEF123456"
SECRET_HASH = f"{'0' * 32}${'1' * 64}"


def virtual_key(**rules) -> VirtualKey:
    return VirtualKey(**{"public_id": PUBLIC_ID, "secret_hash": SECRET_HASH, **rules})


def some_policy() -> Policy:
    """A customer with a team with a key, and a user, with rules of each sort."""
    return Policy(
        customers={"acme": Customer(budgets=(Budget(window="year", usd=Decimal(9000)),))},
        teams={
            "core": Team(
                customer="acme",
                time_zone="Europe/Berlin",
                models=ModelRules(allow=("anthropic/*", "openai/gpt-*"), deny=("*/*opus*",)),
                budgets=(
                    Budget(window="month", usd=Decimal("500")),
                    Budget(window="day", usd=Decimal("42.50"), at_end="warn"),
                ),
            )
        },
        virtual_keys={
            "anna": virtual_key(
                team="core",
                expires_at="2026-12-31T23:59:59+01:00",
                tags=("berlin",),
                limits=(RateLimit(requests=60, per="minute"), RateLimit(concurrent=4)),
            )
        },
        users={"root": Rules(budgets=(Budget(window="day", usd=Decimal(20)),))},
    )


_names = st.text(
    st.characters(categories=("Lu", "Ll", "Lo", "Nd"), include_characters="._-@"),
    min_size=1,
    max_size=64,
)


def names() -> st.SearchStrategy[str]:
    """Names that may be given, also in scripts few people read."""
    from opencode_gate.session.policy_names import name_problem

    return _names.filter(lambda name: name_problem("team", name) is None)


_usd = st.decimals(min_value=0, max_value=1_000_000, places=4, allow_nan=False)
_mode = st.sampled_from(["enforce", "shadow"])
_at_end = st.sampled_from(["block", "warn", "downgrade:anthropic/claude-haiku-4-5"])
_warn = st.lists(st.integers(1, 100), max_size=3).map(tuple)
_pattern = st.sampled_from(["anthropic/*", "*", "openai/gpt-5.6", 'odd"name/*', "*/mödel\\x"])


@st.composite
def _budgets(draw) -> tuple[Budget, ...]:
    shapes = st.tuples(
        st.sampled_from(["hour", "day", "week", "month", "quarter", "year", "total"]),
        st.booleans(),
        st.sampled_from(["usd", "tokens"]),
    )
    found = []
    for window, rolling, unit in draw(st.lists(shapes, max_size=4, unique=True)):
        rolls = rolling and window != "total"
        amount = {"usd": draw(_usd)} if unit == "usd" else {"tokens": draw(st.integers(0, 10**12))}
        if any((b.window, b.rolling, b.unit) == (window, rolls, unit) for b in found):
            continue
        found.append(
            Budget(
                window=window,
                rolling=rolls,
                since_us=draw(st.integers(0, 2**50)) if rolls else None,
                at_end=draw(_at_end),
                warn_at_percent=draw(_warn),
                mode=draw(_mode),
                **amount,
            )
        )
    return tuple(found)


@st.composite
def _limits(draw) -> tuple[RateLimit, ...]:
    kinds = st.tuples(
        st.sampled_from(["requests", "tokens", "concurrent"]),
        st.sampled_from(["minute", "hour", "day"]),
    )
    found: dict[tuple[str, str | None], RateLimit] = {}
    for measure, per in draw(st.lists(kinds, max_size=3)):
        span = None if measure == "concurrent" else per
        amount = draw(st.integers(1, 10**9))
        found[measure, span] = RateLimit(**{measure: amount}, per=span, mode=draw(_mode))
    return tuple(found.values())


@st.composite
def _rules(draw) -> dict[str, object]:
    models = st.builds(
        ModelRules,
        allow=st.none() | st.lists(_pattern, min_size=1, max_size=3).map(tuple),
        deny=st.lists(_pattern, max_size=2).map(tuple),
        mode=_mode,
    )
    return {
        "time_zone": draw(st.none() | st.sampled_from(["Europe/Berlin", "UTC"])),
        "models": draw(st.none() | models),
        "limits": draw(_limits()),
        "budgets": draw(_budgets()),
    }


@st.composite
def policies(draw) -> Policy:
    """Any policy a file may hold."""
    some = st.lists(names(), max_size=3, unique=True)
    customers = {name: Customer(**draw(_rules())) for name in draw(some)}
    teams = {
        name: Team(customer=draw(st.none() | st.sampled_from(sorted(customers) or [None])), **rules)
        for name, rules in ((name, draw(_rules())) for name in draw(some))
    }
    keys = {
        name: VirtualKey(
            public_id=f"{number:012d}",
            secret_hash=SECRET_HASH,
            team=draw(st.none() | st.sampled_from(sorted(teams) or [None])),
            active=draw(st.booleans()),
            expires_at=draw(st.sampled_from([None, "2026-12-31T23:59:59+01:00"])),
            tags=tuple(draw(st.lists(names(), max_size=2))),
            **draw(_rules()),
        )
        for number, name in enumerate(draw(some))
    }
    users = {name: Rules(**draw(_rules())) for name in draw(some)}
    return Policy(customers=customers, teams=teams, virtual_keys=keys, users=users)
