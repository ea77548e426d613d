"""The five calls agree with a dictionary, from whatever caller and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_checkpoint import ActiveSnapshot, Checkpointer, MemoryStore, S3Checkpointer
from s3_checkpoint.object_store import ObjectStore
from tests.states import RUN, Counter

OTHER = UUID("3c0f8e3a-08f5-4f3f-8f1c-bb4f8a1d5a2e")
STEPS = st.sampled_from([0, 1, 2, 9, 10, 2**63, 2**64 - 1])
TASKS = st.lists(st.builds(ActiveSnapshot, node_name=st.sampled_from("abc"), payload=st.integers(0, 3)), max_size=3)
CALLS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from([RUN, OTHER]),
        st.sampled_from(["", "sub", "sub/sub"]),
        st.one_of(
            st.tuples(st.just("save"), STEPS, st.integers()),
            st.tuples(st.just("load"), STEPS | st.none(), st.none()),
            st.tuples(st.just("list"), st.none(), st.none()),
            st.tuples(st.just("save_active"), STEPS, TASKS),
            st.tuples(st.just("load_active"), STEPS, st.none()),
        ),
    ),
    max_size=30,
)


@given(calls=CALLS)
@settings(max_examples=150)
async def test_any_sequence_of_calls_agrees_with_a_dictionary(calls: Sequence[Any]) -> None:
    """Two checkpointers on one store, two runs, three namespaces."""
    store = MemoryStore()
    checkpointers = [S3Checkpointer(Counter, store), S3Checkpointer(Counter, store, compression="gzip")]
    await _compare(checkpointers, calls)


@given(calls=CALLS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_any_sequence_of_calls_agrees_with_a_dictionary_on_s3(
    s3_store: ObjectStore, calls: Sequence[Any]
) -> None:
    """The same on the moto server; each example in a prefix of its own."""
    prefix = str(id(calls))
    checkpointers = [S3Checkpointer(Counter, s3_store, prefix=prefix) for _ in range(2)]
    for run_id in (RUN, OTHER):
        for namespace in ("", "sub", "sub/sub"):
            for step in await checkpointers[0].with_namespace(namespace).list(run_id):
                pytest.fail(f"the prefix is not new: {step}")
    await _compare(checkpointers, calls)


async def _compare(checkpointers: Sequence[S3Checkpointer[Counter]], calls: Sequence[Any]) -> None:
    states: dict[tuple[UUID, str], dict[int, Counter]] = {}
    tasks: dict[tuple[UUID, str, int], list[ActiveSnapshot]] = {}
    for who, run_id, namespace, (call, step, value) in calls:
        checkpointer = checkpointers[who].with_namespace(namespace)
        steps = states.setdefault((run_id, namespace), {})
        match call:
            case "save":
                await checkpointer.save(run_id, step, Counter(n=value))
                steps[step] = Counter(n=value)
            case "load":
                expected = steps.get(max(steps, default=-1) if step is None else step)
                assert await checkpointer.load(run_id, step) == expected
            case "list":
                assert await checkpointer.list(run_id) == sorted(steps)
            case "save_active":
                await checkpointer.save_active(run_id, step, value)
                tasks[run_id, namespace, step] = value
            case "load_active":
                assert await checkpointer.load_active(run_id, step) == tasks.get((run_id, namespace, step), [])


class Minimal(Checkpointer[Counter]):
    """A third party's checkpointer, with the three required calls only."""

    async def save(self, run_id: UUID | str, step: int, state: Counter) -> None: ...

    async def load(self, run_id: UUID | str, step: int | None = None) -> Counter | None:
        return None

    async def list(self, run_id: UUID | str) -> list[int]:
        return []


async def test_three_calls_make_a_checkpointer() -> None:
    """Storing active tasks does nothing by default, and so gives none back."""
    minimal = Minimal()

    await minimal.save_active(RUN, 0, [ActiveSnapshot(node_name="a")])

    assert await minimal.load_active(RUN, 0) == []


def test_the_three_calls_are_required() -> None:
    """Forgetting one is found when it is made."""
    with pytest.raises(TypeError, match="abstract"):
        Checkpointer()  # type: ignore[abstract]


async def test_a_namespace_is_a_path_of_its_own(store: ObjectStore) -> None:
    """It replaces the one before, and the empty one leads back."""
    graph = S3Checkpointer(Counter, store)
    sub = graph.with_namespace("subgraph_a")
    await graph.save(RUN, 0, Counter(n=0))
    await sub.save(RUN, 5, Counter(n=5))
    await sub.with_namespace("subgraph_a/inner").commit(RUN, 7, Counter(n=7), [])

    assert (graph.namespace, sub.namespace) == ("", "subgraph_a")
    assert await graph.list(RUN) == [0]
    assert await sub.list(RUN) == [5]
    assert await sub.with_namespace("subgraph_a/inner").list(RUN) == [7]
    assert await sub.with_namespace("").list(RUN) == [0]
