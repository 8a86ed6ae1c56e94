"""Client and server must be at home on both event loops they can meet."""

import asyncio
import sys

import pytest


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item):
    """Their tests run on each loop; all others on the standard one."""
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith(("test_upstream", "test_server")) and sys.platform != "win32":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories
