"""What LangGraph's own in-memory saver can be compared with."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from packaging.version import Version

ordered_reference = pytest.mark.skipif(
    Version(version("langgraph-checkpoint")) < Version("4.3"),
    reason="before 4.3 LangGraph replays the writes of parallel tasks to delta channels in another order",
)
