"""What the LangGraph rows say of `S3Saver`: requests and round trips on the wire. Times are never asserted."""

from __future__ import annotations

import math

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from tests.benchmarks import langgraph_turns
from tests.benchmarks.langgraph_rows import run, table
from tests.benchmarks.stub_process import running_stub


def test_the_saver_needs_the_requests_and_round_trips_it_says() -> None:
    with running_stub() as stub:
        rows = run(stub, sizes=(10, 400), deleted=30, names=["S3Saver"])

    assert {row.work: row.requests for row in rows} == {
        "put, 4 KB": 1,
        "put_writes, 3 writes": 1,
        "latest of 10": 2,
        "latest of 400": 2,
        "list(limit=10) of 100": 11,
        "delete_thread of 30": 3,
    }
    # Ten reads sent together overlap for certain on an idle machine only; the saver's own tests assert that they are.
    assert {row.work: row.round_trips for row in rows if row.requests <= 2} == {
        row.work: row.requests for row in rows if row.requests <= 2
    }
    assert "| latest of 400 | 2 / 2, " in table(rows)


def test_a_saver_that_takes_too_long_is_stopped_and_its_row_says_where() -> None:
    """A turn that has begun is finished."""
    with S3Saver(MemoryStore()) as saver:
        assert langgraph_turns.converse(saver, "stopped", range(3), longest_s=-1) == 0
        assert langgraph_turns.converse(saver, "whole", range(2), longest_s=math.inf) is None
        assert len(list(saver.list(langgraph_turns.of("stopped")))) == 0
    slow = langgraph_turns.Measured("50 turns", "slow", {"GetObject": 2_000}, 91.5, 60.2, stopped_after=17)

    assert "| 50 turns | 2000, 91.50 (60.20), stopped after 17 turns |" in langgraph_turns.table([slow])
