"""A batch of ended exchanges, priced and put into the ledger.

The invariant: no exchange is lost because it could not be priced, or has a value that no
database takes.
"""

import logging
from collections.abc import Callable, Iterable

import msgspec

from opencode_gate.core.semconv import CostQuality, UsageQuality
from opencode_gate.core.usage import TokenUsage
from opencode_gate.ledger.records import ExchangeRecord, within_reservation
from opencode_gate.ledger.store import Store

Price = Callable[[ExchangeRecord], ExchangeRecord]

_logger = logging.getLogger(__name__)


def commit(
    store: Store, batch: Iterable[ExchangeRecord], price: Price, process_id: str
) -> list[ExchangeRecord]:
    """Prices exchanges and folds them; as what they were folded.

    Args:
        process_id: of the process that admitted them.

    Raises:
        LedgerError: the database failed.
    """
    priced = [_priced(exchange, price) for exchange in batch]
    try:
        store.fold(priced, process_id=process_id)
    except (ValueError, OverflowError):
        return [_folded_alone(store, exchange, process_id) for exchange in priced]
    return priced


def _folded_alone(store: Store, exchange: ExchangeRecord, process_id: str) -> ExchangeRecord:
    """Folds one of a batch with a value no database takes, if need be without such values."""
    try:
        store.fold([exchange], process_id=process_id)
    except (ValueError, OverflowError):
        _logger.exception("exchange %s has values that cannot be stored", exchange.id)
        exchange = storable(exchange)
        store.fold([exchange], process_id=process_id)
    return exchange


def storable(exchange: ExchangeRecord) -> ExchangeRecord:
    """An exchange without values that cannot be written down, such as counts beyond 64 bits."""
    return msgspec.structs.replace(
        exchange,
        request_model=_storable(exchange.request_model),
        response_model=_storable(exchange.response_model),
        raw_usage=_storable(exchange.raw_usage),
        finish_reason=_storable(exchange.finish_reason),
        downgraded_from=_storable(exchange.downgraded_from),
        decisions=_storable(exchange.decisions),
        usage=TokenUsage(),
        usage_quality=UsageQuality.UNKNOWN,
        prompt_id=None,
        tools_called=(),
        reported_cost_nano_usd=None,
        priced_cost_nano_usd=None,
        cache_saved_nano_usd=None,
        cost_nano_usd=None,
        cost_quality=CostQuality.UNKNOWN,
    )


def _storable(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode()


def _priced(exchange: ExchangeRecord, price: Price) -> ExchangeRecord:
    try:
        return within_reservation(price(exchange))
    except Exception:
        # Whatever is wrong with a price book, the exchange happened.
        _logger.exception("exchange %s could not be priced", exchange.id)
        return exchange
