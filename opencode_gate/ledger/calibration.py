"""What estimates came to where the truth became known, and estimates corrected by it.

The idea: most answers end with the provider's counts, so each of them also tells how far an
estimate of it would have been off; the answers that are cut are estimated with that in mind. For
each provider and model there are three kinds of estimate: of the input from its size, of the
output from its text, and of the output from its length, for when the process died with the text.
The invariant: nothing but sums is kept, never what was said.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from opencode_gate.core.semconv import Operation, UsageQuality
from opencode_gate.ledger.ratios import Kind, Ratio, RatioKey
from opencode_gate.ledger.records import ExchangeRecord
from opencode_gate.wire.estimates import estimated_tokens, hides_reasoning
from opencode_gate.wire.facts import prompt_bytes
from opencode_gate.wire.metering import Delivered

CountText: TypeAlias = Callable[[str, str | None], int]
"""The tokens of a text as a model would have cut it."""

_TEXTS_COUNTED = 20
"""Answers whose text is counted though their counts are known, for each model; then it is known."""
_OUTPUT_TOKENS_MIN = 32
"""Below it what frames an answer outweighs what it says."""


class Calibration:
    """The ratios of one ledger, as they were read and as they change. For one thread.

    Attributes:
        learned: what is not in the ledger yet.
    """

    def __init__(
        self, count_text: CountText | None = None, known: Mapping[RatioKey, Ratio] | None = None
    ) -> None:
        self.learned: dict[RatioKey, Ratio] = {}
        self._count_text = count_text
        self._known = dict(known) if known is not None else {}

    def remember(self, known: Mapping[RatioKey, Ratio]) -> None:
        """Takes over what the ledger knows."""
        self._known.update(known)

    def factor(self, exchange: ExchangeRecord, kind: Kind) -> float:
        """The correction for an exchange's model."""
        key = _key(exchange, kind)
        ratio = None if key is None else self._known.get(key)
        return 1.0 if ratio is None else ratio.factor

    def settled(
        self, exchange: ExchangeRecord, body: bytes, delivered: Delivered | None
    ) -> ExchangeRecord:
        """The record with its estimates made better; from one without any it learns."""
        if exchange.operation is not Operation.GENERATE or delivered is None:
            return exchange
        if exchange.usage_quality is UsageQuality.REPORTED:
            self._learn(exchange, body, delivered)
            return exchange
        if exchange.usage_quality is UsageQuality.UNKNOWN:
            return exchange
        usage = exchange.usage
        if delivered.seen.input_tokens is None:
            size = estimated_tokens(prompt_bytes(body), exchange.wire_format)
            tokens = round(size * self.factor(exchange, "input_size"))
            usage = msgspec.structs.replace(usage, input_uncached=tokens)
        counted = round(self._count(exchange, delivered) * self.factor(exchange, "output_text"))
        told = delivered.seen.output
        usage = msgspec.structs.replace(
            usage, output=counted if told is None else max(told, counted)
        )
        return msgspec.structs.replace(exchange, usage=usage)

    def _count(self, exchange: ExchangeRecord, delivered: Delivered) -> int:
        text = delivered.text
        if self._count_text is None or not text:
            return estimated_tokens(delivered.chars, exchange.wire_format)
        return round(self._count_text(text, exchange.request_model) * delivered.chars / len(text))

    def _learn(self, exchange: ExchangeRecord, body: bytes, delivered: Delivered) -> None:
        usage = exchange.usage
        if usage.input_tokens:
            size = estimated_tokens(prompt_bytes(body), exchange.wire_format)
            self._add(exchange, "input_size", size, usage.input_tokens)
        is_seen = not (
            usage.reasoning or delivered.hides_reasoning or hides_reasoning(exchange.request_model)
        )
        if usage.output is None or usage.output < _OUTPUT_TOKENS_MIN or not is_seen:
            return
        size = estimated_tokens(delivered.chars, exchange.wire_format)
        self._add(exchange, "output_size", size, usage.output)
        key = _key(exchange, "output_text")
        known = None if key is None else self._known.get(key)
        if self._count_text is not None and (known is None or known.answers < _TEXTS_COUNTED):
            self._add(exchange, "output_text", self._count(exchange, delivered), usage.output)

    def _add(self, exchange: ExchangeRecord, kind: Kind, estimate: int, reported: int) -> None:
        """Notes one answer, unless it says nothing about text: an image, a wrong count."""
        key = _key(exchange, kind)
        if key is None or not estimate / 4 <= reported <= estimate * 4:
            return
        ratio = Ratio(estimate, reported, 1)
        nothing = Ratio(0, 0, 0)
        self._known[key] = self._known.get(key, nothing) + ratio
        self.learned[key] = self.learned.get(key, nothing) + ratio


def _key(exchange: ExchangeRecord, kind: Kind) -> RatioKey | None:
    model = exchange.request_model
    return None if model is None else (exchange.provider_name, model, kind)
