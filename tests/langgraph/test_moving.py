"""`copy_threads`: from any LangGraph saver to this one and back, whole, in order, and again where it was cut short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command

from s3_checkpoint import InvalidArgumentError, MemoryStore, StateDecodingError
from s3_checkpoint.langgraph import S3Saver, ThreadAdmin, copy_threads
from s3_checkpoint.langgraph.moving import OpaqueSerializer
from tests.benchmarks.postgres_server import postgres_url, server_available
from tests.langgraph.counting import Counting, at, chain
from tests.langgraph.graphs import asking, chat, delta, map_reduce, nested
from tests.langgraph.reference import ordered_reference
from tests.langgraph.test_thread_admin import Tool

KEY = b"0123456789abcdef"
THREADS = {"asking", "nested", "chat", "delta", "map", "slash/and blank"}


def fill(saver: BaseCheckpointSaver[Any]) -> None:
    asking().compile(checkpointer=saver).invoke({"trail": ["go"]}, at("asking"))
    nested(ask=True).compile(checkpointer=saver).invoke({"trail": []}, at("nested"))
    graph = chat().compile(checkpointer=saver)
    for text in ("hi", "how are you"):
        graph.invoke({"messages": [HumanMessage(text, id=text)]}, at("chat"))
    delta(every=3).compile(checkpointer=saver).invoke({}, at("delta") | {"recursion_limit": 50})
    map_reduce().compile(checkpointer=saver).invoke({"items": [1, 2, 3]}, at("map"))
    graph.invoke({"messages": [HumanMessage("there", id="t")]}, at("slash/and blank"))


def states(saver: BaseCheckpointSaver[Any]) -> dict[str, Any]:
    """What LangGraph makes of every thread: the history of its states, delta channels rebuilt."""
    graphs: dict[str, Any] = {"asking": asking(), "nested": nested(ask=True), "chat": chat(), "delta": delta(every=3)}
    return {
        name: [
            (state.config["configurable"]["checkpoint_id"], state.values, state.next, state.metadata)
            for state in builder.compile(checkpointer=saver).get_state_history(at(name))
        ]
        for name, builder in graphs.items()
    }


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    if not server_available():
        pytest.skip("no Postgres server: initdb and pg_ctl are not on the path")
    # The server runs as another user, to whom pytest's own folders are closed.
    with TemporaryDirectory() as scratch, postgres_url(Path(scratch)) as url:
        yield url


@pytest.fixture(params=[pytest.param("memory", marks=ordered_reference), "sqlite", "postgres"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCheckpointSaver[Any]]:
    """One of LangGraph's own savers, empty."""
    with ExitStack() as stack:
        if request.param == "memory":
            yield InMemorySaver()
        elif request.param == "sqlite":
            sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
            yield stack.enter_context(sqlite.SqliteSaver.from_conn_string(str(tmp_path / "threads.sqlite")))
        else:
            saver = pytest.importorskip("langgraph.checkpoint.postgres").PostgresSaver
            opened = stack.enter_context(saver.from_conn_string(request.getfixturevalue("postgres")))
            opened.setup()
            for name in THREADS:
                opened.delete_thread(name)
            yield opened


def test_threads_move_in_and_back_and_the_graphs_continue(other: BaseCheckpointSaver[Any]) -> None:
    """States, next nodes, metadata, delta channels; an interrupted thread is answered where it has come to."""
    fill(other)
    before = states(other)
    with S3Saver(MemoryStore(), inline_bytes=64) as saver, S3Saver(MemoryStore()) as back:
        counted = copy_threads(other, saver, dry_run=True)
        assert list(saver.list(None)) == []
        copied = copy_threads(other, saver)

        assert (copied.threads, copied.checkpoints, copied.there_before) == (6, counted.checkpoints, 0)
        assert copied.writes == counted.writes > 0
        assert states(saver) == before
        copy_threads(saver, back)
        assert states(back) == before
        copy_threads(back, InMemorySaver())
        answered = asking().compile(checkpointer=saver).invoke(Command(resume="one"), at("asking"))
        assert answered["__interrupt__"][0].value == "second?"


def test_a_copy_cut_short_is_completed_and_writes_nothing_twice() -> None:
    """What was copied until then is the thread as it was earlier."""
    source, counting = InMemorySaver(), Counting(MemoryStore())
    chain(source, at("t"), 10)
    with S3Saver(counting) as saver:

        def stop(done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy_threads(source, saver, on_progress=stop)
        assert [one.metadata["step"] for one in saver.list(at("t"))] == [3, 2, 1, 0]
        counting.reset()
        seen: list[tuple[int, int]] = []

        copied = copy_threads(source, saver, on_progress=lambda done, total: seen.append((done, total)))

        assert (copied.checkpoints, copied.there_before) == (10, 4)
        assert seen == [(number, 10) for number in range(1, 11)]
        assert counting.requests["PUT"] == 6
        assert [one.metadata["step"] for one in saver.list(at("t"))] == list(range(9, -1, -1))


def test_requests_of_a_copy_are_a_put_and_a_read_for_each_checkpoint() -> None:
    """With a cache, the LIST shows by the ETag that what was put is there, and no GET is made."""
    source, counting = InMemorySaver(), Counting(MemoryStore())
    chain(source, at("t"), 10)
    with S3Saver(counting, cache_bytes=0) as saver:
        copy_threads(source, saver, dry_run=True)
        assert counting.taken() == {}
        copy_threads(source, saver)

    assert counting.taken() == {"PUT": 10, "LIST": 1 + 10, "GET": 10}
    with S3Saver(Counting(MemoryStore())) as saver:
        copy_threads(source, saver)
        assert len(list(saver.list(at("t")))) == 10


def test_copying_named_threads_leaves_the_others() -> None:
    source = InMemorySaver()
    for name in "abc":
        chain(source, at(name), 2)
    with S3Saver(MemoryStore()) as saver:
        copied = copy_threads(source, saver, threads=["a", "c", "nothing"])

        assert (copied.threads, copied.checkpoints) == (2, 4)
        assert {one.config["configurable"]["thread_id"] for one in saver.list(None)} == {"a", "c"}


def test_checkpoints_that_read_back_different_are_errors_that_name_them() -> None:
    """A saver that loses a value is found out."""

    class Forgetful(InMemorySaver):
        def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
            metadata = dict(metadata) | {"step": 99}
            return super().put(config, checkpoint, metadata, new_versions)

    source = InMemorySaver()
    chain(source, at("t"), 1)

    with pytest.raises(StateDecodingError, match=r"\$metadata reads back .*`t//"):
        copy_threads(source, Forgetful())


def test_opaque_values_are_carried_over_byte_for_byte() -> None:
    """Types of the application are not imported, a pickle is not unpickled, an encrypted value stays encrypted."""
    source = InMemorySaver()
    payloads = {
        "tool": source.serde.dumps_typed([Tool("hammer", 2.5), {1: (2, 3)}, b"x", 1.0, "é"]),
        "pickle": ("pickle", b"cos\nsystem\n(S'exit 1'\ntR."),
        "aes": ("msgpack+aes", b"secret"),
        "none": ("null", b""),
        "bytes": ("bytes", b"raw"),
    }

    for payload in payloads.values():
        assert OpaqueSerializer().dumps_typed(OpaqueSerializer().loads_typed(payload)) == payload
    snapshot = OpaqueSerializer().loads_typed(source.serde.dumps_typed(_DeltaSnapshot([Tool("hammer", 2.5)])))
    assert isinstance(snapshot, _DeltaSnapshot)  # a saver has to know it: it is kept apart, and never lost to a prune
    assert OpaqueSerializer().dumps_typed(snapshot) == source.serde.dumps_typed(_DeltaSnapshot([Tool("hammer", 2.5)]))


async def test_delta_snapshots_stay_what_they_are_when_values_are_opaque(tmp_path: Path) -> None:
    """A prune of the copy keeps what the delta channel is rebuilt from."""
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    with sqlite.SqliteSaver.from_conn_string(str(tmp_path / "t.sqlite")) as source, S3Saver(MemoryStore()) as saver:
        graph = delta(every=3).compile(checkpointer=source)
        graph.invoke({}, at("t") | {"recursion_limit": 50})
        serde, saver.serde = saver.serde, OpaqueSerializer()
        source.serde = OpaqueSerializer()
        copy_threads(source, saver)
        saver.serde = serde

        await ThreadAdmin(saver).prune("t", keep_last=2)

        source.serde = serde
        copied = delta(every=3).compile(checkpointer=saver)
        assert copied.get_state(at("t")).values == graph.get_state(at("t")).values


def test_an_encrypted_source_is_copied_with_the_key_and_refused_without(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
    with (
        sqlite.SqliteSaver.from_conn_string(str(tmp_path / "t.sqlite")) as source,
        S3Saver(MemoryStore(), serde=serde) as saver,
    ):
        source.serde = serde
        chain(source, at("t"), 3)
        copied = copy_threads(source, saver)
        source.serde = OpaqueSerializer()

        assert copied.checkpoints == 3
        with pytest.raises(StateDecodingError, match="encrypted"):
            copy_threads(source, saver)


def test_arguments_out_of_bounds_are_refused() -> None:
    saver = InMemorySaver()
    with pytest.raises(InvalidArgumentError):
        copy_threads(saver, saver)
    with pytest.raises(InvalidArgumentError):
        copy_threads(saver, InMemorySaver(), threads_at_once=0)
