"""Background tasks that keep a reference, because the event loop only keeps a weak one.

(https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task)
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Starts `work` as a named task that lives until it ends."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task
