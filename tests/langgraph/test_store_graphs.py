"""Graphs and agents that keep their memory in the store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver, S3Store


def remembering(state: MessagesState, runtime: Runtime[None]) -> dict[str, list[AnyMessage]]:
    """Recalls what the user said in any thread, the last first, and remembers the new message; blocking."""
    store = runtime.store
    assert store is not None
    said = str(state["messages"][-1].content)
    recalled = [item.value["said"] for item in store.search(("users", "7"), filter={"by": "user"})]
    store.put(("users", "7"), f"message {len(recalled)}", {"said": said, "by": "user"})
    return {"messages": [HumanMessage(f"you said: {sorted(recalled)}")]}


async def aremembering(state: MessagesState, runtime: Runtime[None]) -> dict[str, list[AnyMessage]]:
    """The same, without blocking."""
    store = runtime.store
    assert store is not None
    said = str(state["messages"][-1].content)
    recalled = [item.value["said"] for item in await store.asearch(("users", "7"), filter={"by": "user"})]
    await store.aput(("users", "7"), f"message {len(recalled)}", {"said": said, "by": "user"})
    return {"messages": [HumanMessage(f"you said: {sorted(recalled)}")]}


def talk(node: Any, saver: S3Saver, store: BaseStore, *, is_async: bool) -> list[str]:
    """What the graph answers to a message in each of three threads."""
    builder: Any = StateGraph(MessagesState)
    builder.add_node("answer", node)
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=saver, store=store)
    answers = []
    for thread in ("one", "two", "three"):
        given = {"messages": [HumanMessage(f"hello from {thread}")]}, {"configurable": {"thread_id": thread}}
        result = asyncio.run(graph.ainvoke(*given)) if is_async else graph.invoke(*given)
        answers.append(result["messages"][-1].content)
    return answers


@pytest.mark.parametrize(("node", "is_async"), [(remembering, False), (remembering, True), (aremembering, True)])
def test_a_graph_remembers_across_threads_as_with_the_memory_store_of_langgraph(
    node: Any, is_async: bool, memories: S3Store
) -> None:
    """A blocking node of an async run, too: the store has a loop of its own."""
    with S3Saver(MemoryStore()) as saver, S3Saver(MemoryStore()) as other:
        ours = talk(node, saver, memories, is_async=is_async)
        theirs = talk(node, other, InMemoryStore(), is_async=is_async)

    assert ours == theirs
    assert ours[-1] == "you said: ['hello from one', 'hello from two']"


def test_saver_and_store_share_a_prefix_and_an_open_store() -> None:
    """Neither sees what the other keeps."""
    objects = MemoryStore()
    with S3Saver(objects, prefix="app") as saver, S3Store(objects, prefix="app") as memories:
        talk(remembering, saver, memories, is_async=False)

        assert memories.list_namespaces() == [("users", "7")]
        assert {str(one.config["configurable"]["thread_id"]) for one in saver.list(None)} == {"one", "two", "three"}
        saver.delete_thread("one")
        assert len(memories.search(())) == 3


def test_the_files_of_deepagents_are_kept_in_the_store(memories: S3Store) -> None:
    """Its `StoreBackend`: written, listed, read, edited, found, removed."""
    backends: Any = pytest.importorskip("deepagents.backends")
    files = backends.StoreBackend(store=memories, namespace=lambda _: ("user-7", "filesystem"))

    for number in range(120):
        assert files.write(f"/notes/{number:03}.md", f"# Note {number}\nabout cats").error is None
    assert files.edit("/notes/007.md", "cats", "dogs").error is None

    assert len(files.ls("/notes/").entries) == 120
    assert "about dogs" in str(files.read("/notes/007.md"))
    assert "dogs" not in str(files.read("/notes/008.md"))
    assert [match["path"] for match in files.grep("dogs").matches] == ["/notes/007.md"]
    assert len(files.glob("/notes/00*.md").matches) == 10
    assert files.delete("/notes").error is None
    assert files.ls("/notes/").entries == []

    async def use() -> None:
        assert (await files.awrite("/a b/é.md", "text")).error is None
        assert "text" in str(await files.aread("/a b/é.md"))
        assert (await files.adelete("/a b/é.md")).error is None

    asyncio.run(use())
    assert memories.list_namespaces() == []
