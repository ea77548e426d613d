"""Real graphs, checked against what they give with LangGraph's in-memory saver."""

import asyncio
import operator
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal
from uuid import uuid4

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command
from typing_extensions import TypedDict

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph import graphs
from tests.langgraph.counting import Counting, id_of
from tests.langgraph.reference import ordered_reference

Durability = Literal["sync", "async", "exit"]
DURABILITIES: list[Durability] = ["sync", "async", "exit"]

GRAPHS: dict[str, tuple[Callable[[], Any], Any]] = {
    "nested": (graphs.nested, {"trail": []}),
    "delta": (graphs.delta, {"n": 0, "log": []}),
    "delta with snapshots": (lambda: graphs.delta(every=4), {"n": 0, "log": []}),
    "map-reduce": (graphs.map_reduce, {"items": list(range(12))}),
}


def thread() -> Any:
    return {"configurable": {"thread_id": str(uuid4())}}


def history(graph: Any, config: Any) -> list[Any]:
    """All that a state says, but for the ids, which differ from run to run."""
    return [
        (state.values, state.next, state.metadata, [(task.name, task.path, task.result) for task in state.tasks])
        for state in graph.get_state_history(config)
    ]


def same_as_in_memory(saver: S3Saver, name: str) -> bool:
    make, given = GRAPHS[name]
    found = []
    for one in (saver, InMemorySaver()):
        graph, config = make().compile(checkpointer=one), thread()
        result = graph.invoke(given, config, durability="sync")
        found.append((result, history(graph, config)))
    return bool(found[0] == found[1])


@pytest.mark.parametrize("name", ["nested", "map-reduce"])
def test_a_graph_gives_the_result_and_the_history_it_gives_in_memory(saver: S3Saver, name: str) -> None:
    assert same_as_in_memory(saver, name)


@ordered_reference
@pytest.mark.parametrize("name", ["delta", "delta with snapshots"])
def test_delta_channels_give_the_result_and_the_history_they_give_in_memory(name: str) -> None:
    with S3Saver(MemoryStore()) as saver:
        assert same_as_in_memory(saver, name)


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[ordered_reference] if "delta" in name else []) for name in GRAPHS]
)
async def test_every_durability_gives_the_same_result_async_and_sync(name: str, durability: Durability) -> None:
    make, given = GRAPHS[name]
    expected = make().compile(checkpointer=InMemorySaver()).invoke(given, thread())
    with S3Saver(MemoryStore()) as saver:
        graph = make().compile(checkpointer=saver)
        first, second = thread(), thread()

        in_async = await graph.ainvoke(given, first, durability=durability)
        in_sync = await asyncio.to_thread(graph.invoke, given, second, durability=durability)

        assert in_async == in_sync == expected
        for config in (first, second):
            assert (await graph.aget_state(config)).values == expected
            assert len(list(saver.list({"configurable": config["configurable"] | {"checkpoint_ns": ""}}))) >= 1


@pytest.mark.parametrize("durability", DURABILITIES)
def test_an_interrupt_deep_in_a_subgraph_is_answered_by_another_process(durability: Durability) -> None:
    """Each call has a saver and a graph of its own, as invocations of a function have."""
    store, config = MemoryStore(), thread()

    def invoke(given: Any) -> Any:
        with S3Saver(store) as saver:
            return graphs.nested(ask=True).compile(checkpointer=saver).invoke(given, config, durability=durability)

    asked = invoke({"trail": []})
    answered = invoke(Command(resume="left it"))

    assert [item.value for item in asked["__interrupt__"]] == ["which way?"]
    assert "__interrupt__" not in answered
    assert [step for step in answered["trail"] if step.startswith("deep")] == ["deep left it"]
    assert answered["trail"].count("right.two") == 1
    assert answered["trail"][-1] == "end"


@pytest.mark.parametrize("durability", DURABILITIES)
async def test_several_interrupts_in_one_node_are_answered_one_by_one(durability: Durability) -> None:
    """The last resume value of a task counts, and those before it are kept."""
    store, config = MemoryStore(), thread()

    async def invoke(given: Any) -> Any:
        async with S3Saver(store) as saver:
            return await graphs.asking().compile(checkpointer=saver).ainvoke(given, config, durability=durability)

    questions = []
    result = await invoke({"trail": []})
    for answer in ("a", "b", "c"):
        questions += [item.value for item in result["__interrupt__"]]
        result = await invoke(Command(resume=answer))

    assert questions == ["first?", "second?", "last?"]
    assert result == {"trail": ["a+b", "c"]}


def test_time_travel_replays_from_any_checkpoint_and_forks_leave_the_old_branch(saver: S3Saver) -> None:
    graph, config = graphs.leaf("x").compile(checkpointer=saver), thread()
    graph.invoke({"trail": ["start"]}, config, durability="sync")
    states = list(graph.get_state_history(config))
    before_two = next(state for state in states if state.next == ("two",))

    replayed = graph.invoke(None, before_two.config, durability="sync")
    forked = graph.update_state(before_two.config, {"trail": ["changed"]})
    result = graph.invoke(None, forked, durability="sync")

    assert replayed == {"trail": ["start", "x.one", "x.two"]}
    assert result == {"trail": ["start", "x.one", "changed", "x.two"]}
    assert graph.get_state(states[0].config).values == {"trail": ["start", "x.one", "x.two"]}
    fork = graph.get_state(forked)
    assert fork.parent_config["configurable"]["checkpoint_id"] == id_of(before_two.config)
    assert graph.get_state(config).values == result
    assert len(list(graph.get_state_history(config))) > len(states)


@ordered_reference
@pytest.mark.parametrize("durability", DURABILITIES)
def test_delta_channels_are_rebuilt_by_another_process_after_forks_and_pruning(durability: Durability) -> None:
    store, config = MemoryStore(), thread()
    with S3Saver(store) as saver:
        graph = graphs.delta(rounds=4).compile(checkpointer=saver)
        expected = graph.invoke({"n": 0, "log": ["first"]}, config, durability=durability)
        graph.update_state(config, {"log": ["by hand"]}, as_node="zeta")
        expected["log"].append("by hand")

    with S3Saver(store) as saver:
        graph = graphs.delta(rounds=4).compile(checkpointer=saver)
        assert graph.get_state(config).values == expected
        before = len(list(saver.list(None)))
        saver.prune([config["configurable"]["thread_id"]])
        assert len(list(saver.list(None))) <= before
        assert graph.get_state(config).values == expected
        saver.copy_thread(config["configurable"]["thread_id"], "copy")
        assert graph.get_state({"configurable": {"thread_id": "copy"}}).values == expected

        continued = graph.invoke({"n": 0, "log": ["again"]}, config, durability=durability)

    assert continued["log"][: len(expected["log"])] == expected["log"]
    assert continued["log"][len(expected["log"])] == "again"
    assert len(continued["log"]) == len(expected["log"]) + 9


def test_retries_run_only_the_failed_one_of_many_tasks_sent_at_once() -> None:
    runs: list[int] = []

    def square(task: Any) -> Any:
        runs.append(task["item"])
        if task["item"] == 3 and runs.count(3) == 1:
            raise ConnectionError("once")
        return graphs.square(task)

    with S3Saver(MemoryStore()) as saver:
        graph, config = graphs.map_reduce(square).compile(checkpointer=saver), thread()
        with pytest.raises(ConnectionError):
            graph.invoke({"items": list(range(10))}, config)
        waiting = graph.get_state(config).tasks
        finished = {n for n, task in enumerate(waiting) if task.result is not None}

        result = graph.invoke(None, config)

    assert result["total"] == sum(n**2 for n in range(10))
    assert finished
    assert all(runs.count(n) == 1 for n in finished)
    assert runs.count(3) == 2


def test_a_message_history_grows_to_five_hundred() -> None:
    """And at its end the newest state still takes one LIST and two round trips, or one in a process that wrote it."""
    store, config = Counting(MemoryStore()), thread()
    with S3Saver(store) as saver:
        graph = graphs.chat().compile(checkpointer=saver)
        for turn in range(50):
            graph.invoke(
                {"messages": [HumanMessage(f"{turn}.{n} {'…' * 100}", id=f"h{turn}.{n}") for n in range(9)]}, config
            )
        store.reset()

        messages = graph.get_state(config).values["messages"]

        assert len(messages) == 500
        assert len({message.id for message in messages}) == 500
        assert messages[499].content == "answer 499"
        assert (store.requests, store.rounds) == ({"LIST": 1}, 1)
        store.reset()
        with S3Saver(store) as other:
            assert graphs.chat().compile(checkpointer=other).get_state(config).values["messages"] == messages
        assert (store.requests["LIST"], store.rounds) == (1, 2)


def test_a_megabyte_that_does_not_change_is_stored_once_in_a_run() -> None:
    """However many supersteps, runs and processes there are."""
    store, config, document = MemoryStore(), thread(), "x" * 1_000_000

    class Reading(TypedDict):
        document: str
        trail: Annotated[list[str], operator.add]

    for turn in range(3):
        with S3Saver(store) as saver:
            builder: Any = StateGraph(Reading)
            builder.add_sequence([(f"step{n}", lambda _, n=n: {"trail": [f"{n}"]}) for n in range(5)])
            builder.add_edge(START, "step0")
            graph = builder.compile(checkpointer=saver)
            result = graph.invoke({"trail": []} if turn else {"document": document, "trail": []}, config)

    assert len(result["trail"]) == 15
    assert result["document"] == document
    # Three times, all in the first superstep: as the input, as the write that passes it on, and as the channel.
    assert sum(stored.head.size for stored in store._objects.values()) < 3_050_000
    assert sum("/values/" in key for key in store._objects) == 2


STRICT = """
import dataclasses, sys
from typing import TypedDict
from langgraph.graph import START, StateGraph
from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver

@dataclasses.dataclass
class Mine:
    n: int

class State(TypedDict):
    mine: Mine

store = MemoryStore()
builder = StateGraph(State)
builder.add_node("add", lambda state: {"mine": Mine(state["mine"].n + 1)})
builder.add_edge(START, "add")
config = {"configurable": {"thread_id": "t"}}
with S3Saver(store) as saver:
    builder.compile(checkpointer=saver).invoke({"mine": Mine(1)}, config)
with S3Saver(store) as saver:
    print(builder.compile(checkpointer=saver).get_state(config).values, saver.get(config)["channel_values"])
"""


def test_strict_msgpack_mode_loads_the_types_of_the_graph_and_no_others() -> None:
    environment = {**os.environ, "LANGGRAPH_STRICT_MSGPACK": "true"}

    ended = subprocess.run(
        [sys.executable, "-c", STRICT], env=environment, capture_output=True, text=True, timeout=180, check=True
    )

    assert ended.stdout.strip() == "{'mine': Mine(n=2)} {'mine': {'n': 2}}"


async def test_a_sync_subgraph_runs_inside_an_async_run(saver: S3Saver) -> None:
    """A sync node runs in a worker thread; there it finds the saver of the async run, and calls its sync methods."""
    subgraph = graphs.asking().compile(checkpointer=True)

    def node(_: Any) -> Any:
        return subgraph.invoke({"trail": []})

    builder: Any = StateGraph(graphs.Trail)
    builder.add_node("outer", node)
    builder.add_edge(START, "outer")
    graph, config = builder.compile(checkpointer=saver), thread()

    result = await graph.ainvoke({"trail": []}, config)
    for answer in ("a", "b", "c"):
        assert result["__interrupt__"]
        result = await graph.ainvoke(Command(resume=answer), config)

    assert result == {"trail": ["a+b", "c"]}


async def test_a_stateful_subgraph_remembers_its_own_calls(saver: S3Saver) -> None:
    """Its namespace has no colon, and outlives the calls."""
    inner = graphs.leaf("in").compile(checkpointer=True)
    builder = StateGraph(graphs.Trail)
    builder.add_node("outer", inner)
    builder.add_edge(START, "outer")
    graph, config = builder.compile(checkpointer=saver), thread()

    await graph.ainvoke({"trail": []}, config)
    await graph.ainvoke({"trail": []}, config)

    namespaces = {item.config["configurable"]["checkpoint_ns"] async for item in saver.alist(None)}
    assert namespaces == {"", "outer"}
    newest = await saver.aget_tuple({"configurable": config["configurable"] | {"checkpoint_ns": "outer"}})
    assert newest is not None
    assert newest.checkpoint["channel_values"]["trail"].count("in.two") >= 2


def counter(saver: BaseCheckpointSaver[Any]) -> Any:
    builder = StateGraph(graphs.Trail)
    builder.add_node("add", lambda state: {"trail": [str(len(state["trail"]))]})
    builder.add_edge(START, "add")
    return builder.compile(checkpointer=saver)


def test_twenty_threads_of_twenty_runs_at_once_do_not_disturb_each_other() -> None:
    with S3Saver(MemoryStore()) as saver, ThreadPoolExecutor(20) as pool:
        graph = counter(saver)

        def run_all(name: str) -> Any:
            for _ in range(20):
                result = graph.invoke({"trail": []}, {"configurable": {"thread_id": name}})
            return result["trail"]

        results = list(pool.map(run_all, [f"thread-{n}" for n in range(20)]))

    assert results == [[str(n) for n in range(20)]] * 20


async def test_twenty_threads_of_twenty_runs_at_once_in_one_loop() -> None:
    async with S3Saver(MemoryStore()) as saver:
        graph = counter(saver)

        async def run_all(name: str) -> Any:
            for _ in range(20):
                result = await graph.ainvoke({"trail": []}, {"configurable": {"thread_id": name}})
            return result["trail"]

        results = await asyncio.gather(*(run_all(f"thread-{n}") for n in range(20)))

    assert results == [[str(n) for n in range(20)]] * 20
