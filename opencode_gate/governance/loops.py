"""Stops an agent that sends the same request for ever.

Opencode re-sends a turn several times a second, without end and without a word, when an answer
ends in a way it does not know. The invariant: one body of one conversation reaches a provider
at most `LIMIT` times within `WINDOW_S`; Opencode's own retries stay far below that.
"""

from collections import OrderedDict, deque

from opencode_gate.core.errors import PolicyDenied

LIMIT = 6
WINDOW_S = 10.0
_REMEMBERED = 256


class RequestLoop(PolicyDenied):
    """The same request came back too often."""

    http_status = 402
    error_type = "insufficient_quota"


class LoopBreaker:
    """Counts equal requests per conversation in a sliding window. Time is handed in."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int, int], deque[float]] = OrderedDict()

    def check(self, conversation_id: str, body: bytes, now_s: float) -> None:
        """Counts one request.

        Raises:
            RequestLoop: the request must not be sent again.
        """
        key = (conversation_id, len(body), hash(body))
        times = self._seen.pop(key, None)
        if times is None:
            times = deque(maxlen=LIMIT + 1)
        self._seen[key] = times
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        times.append(now_s)
        if len(times) > LIMIT and now_s - times[0] < WINDOW_S:
            raise RequestLoop(
                "request-loop",
                "ogate stopped this conversation: the agent sent the same request again and "
                "again within seconds, and each would have been billed",
                hint="send a new prompt, or choose another model",
            )
