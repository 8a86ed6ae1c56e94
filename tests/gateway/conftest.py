"""The client towards providers must be at home on both event loops it can meet."""

import asyncio
import sys

import pytest


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item):
    """The upstream tests run on each loop; all others on the standard one."""
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith("test_upstream") and sys.platform != "win32":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories
