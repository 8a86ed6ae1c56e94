"""A model without a price is refused where the user said so, and looked up only once else."""

import pytest

from opencode_gate.governance.prices import PriceRule, UnknownPrice


def test_a_model_without_a_price_is_refused_with_the_command_that_mends_it() -> None:
    rule = PriceRule(lambda provider_id, model_id: False)
    with pytest.raises(UnknownPrice) as refused:
        rule.check("mine", "m")
    assert (refused.value.code, refused.value.http_status) == ("unknown-price", 403)
    assert 'prices."mine/m".input' in (refused.value.hint or "")


def test_a_priced_model_is_looked_up_once_and_an_unpriced_one_each_time() -> None:
    asked: list[str | None] = []
    rule = PriceRule(lambda _, model_id: asked.append(model_id) or model_id == "priced")
    rule.check("p", "priced")
    rule.check("p", "priced")
    for _ in range(2):
        with pytest.raises(UnknownPrice):
            rule.check("p", None)
    assert asked == ["priced", None, None]


def test_what_is_remembered_is_bounded_whatever_models_are_called() -> None:
    rule = PriceRule(lambda *_: True)
    for number in range(3_000):
        rule.check("p", f"m{number}")
        rule.check("p", "x" * 10_000 + str(number))
    assert len(rule._allowed) <= 1_024
    assert max(len(model or "") for _, model in rule._allowed) < 1_000
