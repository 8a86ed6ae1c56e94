"""A few thousand inputs at each edge in every build; `make fuzz` throws a million."""

import pytest

from tests.fuzz.edges import EDGES
from tests.fuzz.runner import run


@pytest.mark.parametrize("name", EDGES)
def test_no_input_breaks_a_promise(name: str) -> None:
    """Nothing escapes, nothing hangs, and the same comes of it however it is cut."""
    report = run(EDGES[name](), inputs=4000, seed=1)
    assert report.outcomes > 20
