"""Stops an agent that asks the same thing for ever.

Opencode re-sends a turn several times a second, without end and without a word, when an answer
ends in a way it does not know; each time with what the model has said so far behind it, so that
no two of these requests need be equal. The invariants: one question of one conversation reaches
a provider at most twice `LIMIT` times within `WINDOW_S`, and Opencode's own retries, five of
them, stay below that; where requests do not come fast, nobody looks at the question.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable

from opencode_gate.core.errors import PolicyDenied

LIMIT = 6
WINDOW_S = 30.0
_REMEMBERED = 256


class RequestLoop(PolicyDenied):
    """The same question came back too often."""

    http_status = 402
    error_type = "insufficient_quota"


class LoopBreaker:
    """Counts requests, and where they come fast questions, in a sliding window.

    Time is handed in.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, Hashable], deque[float]] = OrderedDict()

    def check(self, conversation_id: str, question: Callable[[], Hashable], now_s: float) -> None:
        """Counts one request.

        Args:
            question: gives what was asked, without what the model has said to it since.

        Raises:
            RequestLoop: the request must not be sent again.
        """
        if not self._comes_fast((conversation_id, None), now_s):
            return
        if self._comes_fast((conversation_id, (question(),)), now_s):
            raise RequestLoop(
                "request-loop",
                "ogate stopped this conversation: the agent sent the same question again and "
                "again within seconds, and each would have been billed",
                hint="send a new prompt, or choose another model",
            )

    def _comes_fast(self, key: tuple[str, Hashable], now_s: float) -> bool:
        times = self._seen.pop(key, None)
        if times is None:
            times = deque(maxlen=LIMIT + 1)
        self._seen[key] = times
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        times.append(now_s)
        return len(times) > LIMIT and now_s - times[0] < WINDOW_S
