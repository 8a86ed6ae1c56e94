"""What is remembered of conversations and sessions, to tell an agent that has run away.

The invariant: it is bounded in count and in bytes, whatever the agent sends.
"""

import math
from collections import deque
from collections.abc import Hashable

import msgspec

SPENDING_WITHIN_S = 300.0
_TOGETHER_S = 1.0
"""What is spent within it is remembered as one."""


class Watched(msgspec.Struct):
    """What is remembered of one conversation.

    Attributes:
        asked_s: when it last asked, as often as the same question may come and once more; at
            first long ago.
        asked: how often it has asked.
        look_at: with how many requests its prompt is looked into; before that, nothing can have
            repeated often enough.
        looked_in: how many more that were when it was last looked into.
        question: the one it had then, and `same` in how many requests it has been that one.
        waited_at: how often it had asked when a tool last took long.
        ended_s: when an answer of its last ended.
        failed_s: when its tries failed since the last success.
        questions: when it asked each of its last questions, while they come fast.
    """

    asked_s: deque[float]
    look_at: int
    looked_in: int
    asked: int = 0
    question: Hashable = None
    same: int = 0
    waited_at: int = 0
    ended_s: float = math.inf
    failed_s: deque[float] | None = None
    questions: dict[Hashable, deque[float]] | None = None


class SpentLately(msgspec.Struct):
    """What a session spent lately, in nano-dollars, by the second."""

    spent: deque[tuple[float, int]]
    sum_nano_usd: int = 0

    def add(self, cost_nano_usd: int, now_s: float) -> None:
        """Takes note of what something cost."""
        spent = self.spent
        if spent and now_s - spent[-1][0] < _TOGETHER_S:
            at_s, amount = spent.pop()
            spent.append((at_s, amount + cost_nano_usd))
        else:
            spent.append((now_s, cost_nano_usd))
        self.sum_nano_usd += cost_nano_usd

    def rate_nano_usd(self, now_s: float) -> int:
        """What it spent a minute."""
        spent = self.spent
        while spent and now_s - spent[0][0] >= SPENDING_WITHIN_S:
            self.sum_nano_usd -= spent.popleft()[1]
        return self.sum_nano_usd * 60 // int(SPENDING_WITHIN_S)

    def falls_to_s(self, rate_nano_usd: int, now_s: float) -> float:
        """In how many seconds the spending has fallen to a rate, if nothing is added."""
        left = self.sum_nano_usd
        for at_s, amount in self.spent:
            left -= amount
            if left * 60 // int(SPENDING_WITHIN_S) <= rate_nano_usd:
                return at_s + SPENDING_WITHIN_S - now_s
        return 0.0
