"""`on_unknown_price = "block"` through a real gateway process."""

import httpx

from opencode_gate.catalog.practice import practice_row
from opencode_gate.catalog.rows import ProviderRow
from opencode_gate.config.editing import set_values
from opencode_gate.config.paths import paths
from opencode_gate.core.semconv import ExchangeStatus
from tests.support.gateway import TOKEN, running_gateway

UNREACHED = ProviderRow(id="mine", name="Mine", base_url="http://127.0.0.1:9/v1", source="config")


def ask(gateway, provider_id: str, model: str) -> httpx.Response:
    return httpx.post(
        gateway.url(provider_id, "/v1/chat/completions"),
        json={"model": model, "messages": [{"role": "user", "content": "hi"}]},
        headers={"authorization": f"Bearer {TOKEN}"},
        trust_env=False,
    )


def test_a_model_without_a_price_is_refused_before_anything_is_sent() -> None:
    set_values(paths(), {("pricing", "on_unknown_price"): "block"})
    with running_gateway([UNREACHED, practice_row()]) as gateway:
        refused = ask(gateway, "mine", "m")
        answered = ask(gateway, "practice", "scripted")
        gateway.finish()
        records = {record.provider_name: record for record in gateway.exchanges()}
    assert refused.status_code == 403
    assert "no price is known" in refused.json()["error"]["message"]
    assert answered.status_code == 200
    assert records["mine"].status is ExchangeStatus.DENIED
    assert (records["mine"].denial, records["mine"].attempts) == ("unknown-price", 0)
