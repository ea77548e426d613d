"""Random histories on the saver and on LangGraph's in-memory saver: they answer alike, all along."""

from __future__ import annotations

from typing import Any

import langgraph.checkpoint.base
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, TASKS

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.testing import SmallPages
from tests.langgraph.counting import at, checkpoint, id_of

THREADS = st.sampled_from(["a", "a/b", "ab"])
NAMESPACES = st.sampled_from(["", "n:1|m", "n"])
IDS = st.integers(0, 7).map(lambda n: f"1ef0000{n}-0000-6000-8000-000000000000")
CHANNELS = st.sampled_from(["x", "y", "branch:to:z", TASKS, ERROR, INTERRUPT, RESUME])
VALUES = st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3), st.just("long" * 20))


def seen(found: CheckpointTuple | None) -> Any:
    """All that a tuple says; its config as ids alone, for the in-memory saver echoes what it was asked."""
    if found is None:
        return None
    parent = found.parent_config and id_of(found.parent_config)
    writes = list(found.pending_writes or ())
    if not hasattr(langgraph.checkpoint.base, "writes_sort_key"):  # before 4.3 the in-memory saver did not sort them
        writes.sort(key=repr)
    return id_of(found.config), found.checkpoint, found.metadata, parent, writes


class Alike(RuleBasedStateMachine):
    """Two savers on one store take turns, so that nothing hangs on what one of them remembers."""

    @initialize(keys=st.sampled_from([1, 3, 1000]))
    def begin(self, keys: int) -> None:
        store = SmallPages(MemoryStore(), keys)
        self.ours = [S3Saver(store, inline_bytes=40) for _ in range(2)]
        self.model = InMemorySaver()
        self.asked: set[tuple[str, str]] = set()

    def turn(self) -> S3Saver:
        self.ours.reverse()
        return self.ours[0]

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        cid=IDS,
        parent=IDS,
        values=st.dictionaries(CHANNELS, VALUES),
        run=st.sampled_from("rs"),
    )
    def put(self, thread: str, namespace: str, cid: str, parent: str, values: dict[str, Any], run: str) -> None:
        new = checkpoint(values, checkpoint_id=cid)
        new["channel_versions"] = {channel: self.model.get_next_version(None, None) for channel in values}
        config = at(thread, namespace, parent)
        for saver in (self.turn(), self.model):
            saver.put(config, new, {"run_id": run}, new["channel_versions"])
        self.asked.add((thread, namespace))

    @rule(
        thread=THREADS,
        namespace=NAMESPACES,
        cid=IDS,
        task=st.sampled_from(["t1", "t2"]),
        writes=st.lists(st.tuples(CHANNELS, VALUES), max_size=4),
        path=st.sampled_from(["", "~1"]),
    )
    def put_writes(
        self, thread: str, namespace: str, cid: str, task: str, writes: list[tuple[str, Any]], path: str
    ) -> None:
        path = f"{path}{task}"  # a task has one path
        for saver in (self.turn(), self.model):
            saver.put_writes(at(thread, namespace, cid), writes, task, path)
        self.asked.add((thread, namespace))

    @rule(thread=THREADS)
    def delete_thread(self, thread: str) -> None:
        for saver in (self.turn(), self.model):
            saver.delete_thread(thread)

    @rule(
        thread=THREADS, namespace=NAMESPACES, before=IDS, limit=st.integers(0, 4), run=st.sampled_from(["r", "s", None])
    )
    def listing(self, thread: str, namespace: str, before: str, limit: int, run: str | None) -> None:
        options: Any = {"before": at(thread, namespace, before), "limit": limit}
        if run:
            options["filter"] = {"run_id": run}
        answers = [[seen(item) for item in s.list(at(thread, namespace), **options)] for s in (self.turn(), self.model)]
        assert answers[0] == answers[1]

    @rule(thread=THREADS, namespace=NAMESPACES, cid=IDS)
    def one(self, thread: str, namespace: str, cid: str) -> None:
        config: RunnableConfig = at(thread, namespace, cid)
        assert seen(self.turn().get_tuple(config)) == seen(self.model.get_tuple(config))

    @invariant()
    def the_newest_and_the_history_are_alike(self) -> None:
        for thread, namespace in getattr(self, "asked", ()):
            config = at(thread, namespace)
            assert seen(self.turn().get_tuple(config)) == seen(self.model.get_tuple(config))
            assert [seen(i) for i in self.turn().list(config)] == [seen(i) for i in self.model.list(config)]

    def teardown(self) -> None:
        for saver in getattr(self, "ours", ()):
            saver.close()


TestSaversAnswerAlike = Alike.TestCase
TestSaversAnswerAlike.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
