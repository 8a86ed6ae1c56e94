"""What is known of models, as budgets ask for it."""

from opencode_gate.catalog.prices import PriceBook
from opencode_gate.governance.request_case import ModelTerms, TermsOf


def terms_from(prices: PriceBook) -> TermsOf:
    """What budgets ask of a model: its price of now, and the limits the catalogue knows."""

    def terms_of(provider_id: str, model_id: str | None) -> ModelTerms:
        if model_id is None:
            return ModelTerms()
        answer = prices.explain(provider_id, model_id)
        row = prices.model(provider_id, model_id)
        return ModelTerms(
            price=None if answer is None else answer.price,
            context_tokens=None if row is None else row.context_tokens,
            output_tokens=None if row is None else row.output_tokens,
        )

    return terms_of
