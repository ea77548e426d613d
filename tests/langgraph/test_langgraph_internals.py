"""What is private in LangGraph, taken away: threads are written, read and pruned all the same."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_SNAPSHOTS = """
import langgraph.checkpoint.memory, langgraph.checkpoint.serde.jsonplus  # which have the class by themselves
import langgraph.checkpoint.serde.types as types
Snapshot = types.__dict__.pop("_DeltaSnapshot")
from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver, langgraph_internals
from s3_checkpoint.langgraph.langgraph_internals import is_snapshot, new_snapshot
assert not is_snapshot(Snapshot([1])) and new_snapshot([1]) == [1]

def checkpoint(number, values, **versions):
    return {"v": 4, "id": str(number), "ts": "", "channel_values": values, "channel_versions": versions,
            "versions_seen": {}, "updated_channels": None}

def of(number=None):
    configurable = {"thread_id": "t", "checkpoint_ns": ""}
    return {"configurable": configurable | ({"checkpoint_id": str(number)} if number else {})}

with S3Saver(MemoryStore()) as saver:
    saver.put(of(), checkpoint(1, {"d": ["seed"]}, d=1), {}, {"d": 1})
    for number in (2, 3, 4):
        saver.put_writes(of(number - 1), [("d", number)], f"task-{number}")
        counters = {"counters_since_delta_snapshot": {"d": (1, 1)}}
        saver.put(of(number - 1), checkpoint(number, {}, d=number), counters, {"d": number})
    saver.prune(["t"])
    found = saver.get_delta_channel_history(config=of(4), channels=["d"])["d"]
    print([value for _, _, value in found["writes"]], found["seed"])
"""


def test_histories_are_read_and_pruned_without_the_class_of_snapshots() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_SNAPSHOTS], capture_output=True, text=True, timeout=120, check=False
    )

    assert (ended.returncode, ended.stdout) == (0, "[2, 3, 4] ['seed']\n"), ended.stderr
