"""`ThreadAdmin` on threads of real graphs: what it says is what LangGraph says, and what it removes is what it may."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send
from pydantic import BaseModel, SecretStr

from s3_checkpoint import InvalidArgumentError, MemoryStore, StateDecodingError
from s3_checkpoint.langgraph import S3Saver, ThreadAdmin, ThreadStatus
from s3_checkpoint.langgraph.json_view import JsonViews
from tests.langgraph.counting import Counting, at, chain, put
from tests.langgraph.graphs import Trail, asking, chat, delta, map_reduce, nested

KEY = b"0123456789abcdef"


async def listed(found: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in found]


async def status_of(saver: S3Saver, thread_id: str) -> Any:
    [activity] = await listed(ThreadAdmin(saver).activity(thread_id))
    return activity


def failing() -> Any:
    def fail(_: Any) -> Any:
        raise ValueError("no such tool")

    builder: Any = StateGraph(Trail)
    builder.add_node("fail", fail)
    builder.add_edge(START, "fail")
    return builder


async def test_status_and_next_nodes_are_those_that_langgraph_tells(saver: S3Saver) -> None:
    """At every checkpoint of four graphs: interrupts, parallel branches, joins, `Send`, subgraphs."""
    admin = ThreadAdmin(saver)
    for name, builder, given in (
        ("asking", asking(), {"trail": ["go"]}),
        ("nested", nested(ask=True), {"trail": []}),
        ("map", map_reduce(), {"items": [1, 2, 3]}),
        ("delta", delta(rounds=2), {}),
    ):
        graph = builder.compile(checkpointer=saver)
        graph.invoke(given, at(name))

        told = {state.config["configurable"]["checkpoint_id"]: state for state in graph.get_state_history(at(name))}
        seen = {view.id: view async for view in admin.history(name)}

        assert seen.keys() == told.keys()
        for checkpoint_id, view in seen.items():
            assert sorted(view.next or ()) == sorted(told[checkpoint_id].next), (name, view)
            assert view.step == (told[checkpoint_id].metadata or {})["step"]
            waiting: list[Any] = [one.value for task in told[checkpoint_id].tasks for one in task.interrupts]
            shown: Any = [write.value for write in view.interrupts]
            assert [one["value"] for ones in shown for one in ones] == waiting
        newest = await admin.checkpoint(name)
        assert newest is not None
        assert sorted(newest.remaining or ()) == sorted(graph.get_state(at(name)).next)


async def test_activity_tells_who_waits_who_failed_and_who_is_done(saver: S3Saver) -> None:
    """With what is waited for, and the node that waits."""
    asking().compile(checkpointer=saver).invoke({"trail": []}, at("waits"))
    chat().compile(checkpointer=saver).invoke({"messages": [HumanMessage("hi")]}, at("done"))
    with pytest.raises(ValueError, match="no such tool"):
        failing().compile(checkpointer=saver).invoke({"trail": ["x"]}, at("failed"))
    put(saver, at("sub", "child:1"))

    found = {activity.thread_id: activity for activity in await listed(ThreadAdmin(saver).activity())}

    assert [found[name].status for name in ("waits", "done", "failed")] == [
        ThreadStatus.INTERRUPTED,
        ThreadStatus.IDLE,
        ThreadStatus.IN_ERROR,
    ]
    assert (found["waits"].next, found["done"].next, found["failed"].next) == (("both",), (), ("fail",))
    assert found["waits"].waits_for == ("first?",)
    assert (found["sub"].checkpoint_id, found["sub"].status) == (None, None)


async def test_a_thread_that_is_answered_becomes_active_and_idle(saver: S3Saver) -> None:
    graph = asking().compile(checkpointer=saver)
    graph.invoke({"trail": []}, at("t"))
    graph.invoke(Command(resume="one"), at("t"))
    assert (await status_of(saver, "t")).waits_for[-1] == "second?"
    graph.invoke(Command(resume="two"), at("t"))
    assert (await status_of(saver, "t")).next == ("last",)

    graph.invoke(Command(resume="three"), at("t"))

    assert (await status_of(saver, "t")).status is ThreadStatus.IDLE


async def test_a_thread_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """It is shown as such; asked for by itself, it is an error."""
    store = MemoryStore()
    with S3Saver(store) as saver:
        for name in "abc":
            put(saver, at(name), {"n": 1})
        [key] = (await store.list("threads/b/")).keys
        head = await store.head(key)
        assert head is not None
        await store.put(key, b"damaged", head.attributes, mode="overwrite")

        found = {one.thread_id: one.status for one in await listed(ThreadAdmin(saver).activity())}

        assert found == {"a": ThreadStatus.IDLE, "b": ThreadStatus.UNREADABLE, "c": ThreadStatus.IDLE}
        assert "cannot be read" in caplog.text
        with pytest.raises(StateDecodingError):
            await status_of(saver, "b")


async def test_a_stop_before_a_node_is_active_with_that_node_next(saver: S3Saver) -> None:
    """A breakpoint writes nothing down, and looks like a process that has stopped."""
    asking().compile(checkpointer=saver, interrupt_before=["both"]).invoke({"trail": []}, at("t"))

    activity = await status_of(saver, "t")

    assert (activity.status, activity.next) == (ThreadStatus.ACTIVE, ("both",))


async def test_messages_are_shown_by_their_fields(saver: S3Saver) -> None:
    chat().compile(checkpointer=saver).invoke({"messages": [HumanMessage("hi", id="h")]}, at("t"))

    view = await ThreadAdmin(saver).checkpoint("t")

    assert view is not None
    shown: Any = view.values["messages"]
    assert [(one["type"], one["content"]) for one in shown] == [("human", "hi"), ("ai", "answer 1")]


class Color(Enum):
    RED = "red"


class Plan(BaseModel):
    title: str
    at: datetime


@dataclasses.dataclass
class Tool:
    name: str
    cost: float


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ({"a": [1, 2.5, True, "x"]}, {"a": [1, 2.5, True, "x"]}),
        (b"12345", {"@type": "bytes", "size": 5}),
        ([b"12345"], [{"@type": "bytes", "size": 5}]),
        ({1: "one", "two": {3}}, {"1": "one", "two": [3]}),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (timedelta(hours=1), "1:00:00"),
        (Color.RED, {"@type": "tests.langgraph.test_thread_admin.Color", "value": "red"}),
        (Tool("hammer", 2.5), {"@type": "tests.langgraph.test_thread_admin.Tool", "name": "hammer", "cost": 2.5}),
        (
            Plan(title="t", at=datetime(2026, 1, 2, tzinfo=UTC)),
            {
                "@type": "tests.langgraph.test_thread_admin.Plan",
                "title": "t",
                "at": "2026-01-02T00:00:00+00:00",
            },
        ),
        (Send("node", {"x": 1}), {"node": "node", "arg": {"x": 1}}),
        (SecretStr("hush"), {"@type": "pydantic.types.SecretStr"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_as_json_and_its_type_is_not_imported(value: Any, shown: Any) -> None:
    assert JsonViews().loads_typed(JsonPlusSerializer().dumps_typed(value)) == shown


def test_pickles_unknown_tags_and_broken_bytes_are_shown_as_type_and_size() -> None:
    """A pickle that would run code does not."""
    assert JsonViews().loads_typed(("pickle", b"cos\nsystem\n(S'exit 1'\ntR.")) == {"@type": "pickle", "size": 25}
    assert JsonViews().loads_typed(("mine", b"123")) == {"@type": "mine", "size": 3}
    assert JsonViews().loads_typed(("msgpack", b"\xc1")) == {"@type": "unreadable msgpack", "size": 1}
    assert JsonViews().loads_typed(("msgpack", b"\xc7\x01\x63x")) == {"@type": "msgpack extension 99", "size": 1}
    assert "too deeply" in str(JsonViews().loads_typed(("msgpack", b"\x91" * 150 + b"\x01")))


def test_types_that_strict_mode_loads_are_shown_as_what_it_loads() -> None:
    """Messages by their fields, as pydantic dumps them."""
    message = AIMessage("hi", id="m", tool_calls=[{"name": "search", "args": {"q": 1}, "id": "c"}])
    payload = JsonPlusSerializer().dumps_typed([message])

    loaded = JsonPlusSerializer(allowed_msgpack_modules=None).loads_typed(payload)

    assert JsonViews().loads_typed(payload) == [loaded[0].model_dump(mode="json")]


async def test_encrypted_threads_are_shown_as_such_and_read_with_the_key() -> None:
    """Without the key: ids, times, channels and who waits; with it, everything."""
    store = MemoryStore()
    serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
    with S3Saver(store, serde=serde) as writer:
        asking().compile(checkpointer=writer).invoke({"trail": ["a"]}, at("t"))
        with_key = await ThreadAdmin(writer).checkpoint("t")
        with S3Saver(store) as reader:
            without = await ThreadAdmin(reader).checkpoint("t")
            activity = await status_of(reader, "t")

    assert with_key is not None
    assert without is not None
    assert (with_key.encrypted, with_key.values["trail"], with_key.next) == (False, ["a"], ("both",))
    assert (without.encrypted, without.next, without.step) == (True, None, None)
    assert without.values["trail"] == {"@type": "encrypted", "cipher": "aes", "size": 35}
    assert activity.status is ThreadStatus.INTERRUPTED


async def test_namespaces_of_subgraphs_are_listed_and_shown(saver: S3Saver) -> None:
    nested(ask=True).compile(checkpointer=saver).invoke({"trail": []}, at("t"))
    admin = ThreadAdmin(saver)

    names = await admin.namespaces("t")

    assert "" in names
    assert {name.partition(":")[0] for name in names} == {"", "left", "right"}
    deep = next(name for name in names if "|inner" in name)
    view = await admin.checkpoint("t", namespace=deep)
    assert view is not None
    assert (view.namespace, view.status, view.next) == (deep, ThreadStatus.INTERRUPTED, ("deep",))


ODD = ["a", "a b/c", "ab", "", "é" * 100, "x" * 200, "..", "tab\tand\nline", "%2F", "🦜"]


async def test_any_thread_id_is_listed_found_and_shown(saver: S3Saver) -> None:
    """Blanks, slashes, 200 bytes, an empty one; the one that is equal comes first, then those that begin so."""
    for thread_id in ODD:
        put(saver, at(thread_id), {"n": 1})
    admin = ThreadAdmin(saver)

    assert sorted(await listed(admin.threads())) == sorted(ODD)
    assert await admin.find("a") == ["a", "a b/c", "ab"]
    assert await admin.find("x" * 150) == ["x" * 200]
    assert await admin.find("é" * 60) == ["é" * 100]
    assert await admin.find("nothing") == []
    for thread_id in ODD:
        view = await admin.checkpoint(thread_id)
        assert view is not None
        assert view.thread_id == thread_id


async def test_diff_says_what_a_turn_changed(saver: S3Saver) -> None:
    chain(saver, at("t"), 3)
    admin = ThreadAdmin(saver)
    newest, _, oldest = await admin.checkpoint_ids("t")

    changes = await admin.diff("t", oldest, newest)

    assert [change.as_row(root) for root, change in changes] == [
        {"path": "$.n", "change": "changed", "before": 0, "after": 2}
    ]
    assert len(await admin.diff("t", None, oldest)) == 1
    with pytest.raises(InvalidArgumentError, match="not stored"):
        await admin.diff("t", "nothing", newest)


async def test_delta_channels_are_shown_by_seed_and_writes(saver: S3Saver) -> None:
    delta(every=3, rounds=4).compile(checkpointer=saver).invoke({}, at("t"))
    admin = ThreadAdmin(saver)
    views = [view async for view in admin.history("t") if view.delta_channels]

    assert views[0].delta_channels == ("log",)
    shown: Any = (await admin.delta_writes(views[0]))["log"]

    assert shown["writes"]
    assert await admin.delta_writes((await listed(admin.history("t")))[-1]) == {}


async def test_prune_keeps_the_last_of_each_namespace_and_what_is_young() -> None:
    """By count, by age, and by both: then only what both let go."""
    now = [datetime(2026, 1, 10, tzinfo=UTC)]
    store = MemoryStore(now=lambda: now[0])
    with S3Saver(store, grace=timedelta(0)) as saver:
        admin = ThreadAdmin(saver, now=lambda: now[0])
        for day in range(10):
            now[0] = datetime(2026, 1, 1 + day, tzinfo=UTC)
            put(saver, at("t"), {"n": day}, step=day)
            put(saver, at("t", "stateful"), {"n": day}, step=day)

        planned = await admin.prune("t", keep_last=4, older_than=timedelta(days=2, hours=1), dry_run=True)
        assert (planned.checkpoints, planned.kept, planned.dry_run) == (12, 8, True)
        assert len(await admin.checkpoint_ids("t")) == 10
        young = await admin.prune("t", older_than=timedelta(days=6, hours=1))
        assert (young.checkpoints, young.kept) == (6, 14)
        last = await admin.prune("t", keep_last=2)

        assert (last.checkpoints, last.kept, last.objects) == (10, 4, 10)
        assert [view.step async for view in admin.history("t")] == [9, 8]
        assert [view.step async for view in admin.history("t", namespace="stateful")] == [9, 8]
        assert (await admin.prune("t", older_than=timedelta(0))).kept == 2


@pytest.mark.parametrize("every", [3, 1000])
async def test_prune_leaves_the_state_of_delta_channels_whole(new_saver: Callable[[], S3Saver], every: int) -> None:
    """Of every checkpoint that is kept, whatever the number."""
    for keep_last in (1, 3, 7):
        saver = new_saver()
        graph = delta(every=every).compile(checkpointer=saver)
        graph.invoke({}, at("t") | {"recursion_limit": 50})
        before = {str(state.config): state.values for state in graph.get_state_history(at("t"))}

        pruned = await ThreadAdmin(saver).prune("t", keep_last=keep_last)

        kept = list(graph.get_state_history(at("t"), limit=keep_last))
        assert [before[str(state.config)] for state in kept] == [state.values for state in kept]
        assert pruned.kept >= keep_last


async def test_namespaces_of_calls_go_with_the_checkpoint_that_made_them(saver: S3Saver) -> None:
    """Ten turns call two subgraphs each; after a prune those of the last turn are left."""
    graph = nested().compile(checkpointer=saver)
    for _ in range(3):
        graph.invoke({"trail": []}, at("t"))
    admin = ThreadAdmin(saver)
    assert len(await admin.namespaces("t")) == 1 + 3 * 3

    pruned = await admin.prune("t", keep_last=6)

    assert len(await admin.namespaces("t")) == 1 + 3
    assert pruned.namespaces == 6
    assert graph.get_state(at("t")).values["trail"][-1] == "end"


async def test_prune_refuses_encrypted_threads_with_delta_channels_without_the_key() -> None:
    """It cannot see what they are rebuilt from; with the key it can."""
    store = MemoryStore()
    serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
    with S3Saver(store, serde=serde) as writer, S3Saver(store) as reader:
        graph = delta().compile(checkpointer=writer)
        graph.invoke({}, at("t") | {"recursion_limit": 50})
        state = graph.get_state(at("t")).values

        with pytest.raises(StateDecodingError, match="encrypted"):
            await ThreadAdmin(reader).prune("t", keep_last=2)
        await ThreadAdmin(writer).prune("t", keep_last=2)

        assert graph.get_state(at("t")).values == state


@pytest.mark.parametrize("rule", [{}, {"keep_last": 0}, {"older_than": timedelta(-1)}])
async def test_prune_refuses_rules_out_of_bounds(saver: S3Saver, rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        await ThreadAdmin(saver).prune("t", **rule)
    with pytest.raises(InvalidArgumentError):
        await ThreadAdmin(saver).prune_all(**rule)


async def test_delete_copy_and_usage_count_what_is_there(saver: S3Saver) -> None:
    admin = ThreadAdmin(saver)
    chain(saver, at("a"), 3)
    chain(saver, at("x" * 200), 2)
    await admin.copy("a", "b")

    assert {one.thread_id: one.objects for one in await listed(admin.usage())} == {"a": 3, "b": 3, "x" * 200: 3}
    planned = await admin.delete("a", dry_run=True)
    assert (planned.checkpoints, planned.objects) == (3, 3)
    assert planned.bytes == next(one.bytes for one in await listed(admin.usage()) if one.thread_id == "a")
    await admin.delete("a")

    assert sorted(await listed(admin.threads())) == ["b", "x" * 200]
    assert await admin.checkpoint("a") is None
    assert await listed(admin.activity("a")) == [type(await status_of(saver, "a"))("a")]


async def test_prune_all_prunes_every_thread(saver: S3Saver) -> None:
    for name in "abc":
        chain(saver, at(name), 3)
    seen: list[str] = []

    done = await ThreadAdmin(saver).prune_all(keep_last=1, on_thread=lambda one: seen.append(one.thread_id))

    assert sorted(seen) == sorted(one.thread_id for one in done) == ["a", "b", "c"]
    assert sum(one.checkpoints for one in done) == 6


async def test_requests_are_those_of_the_docstrings() -> None:
    """For one thread of 20 checkpoints with a large value, one that waits, one with an id too long for its key."""
    counting = Counting(MemoryStore())
    with S3Saver(counting, cache_bytes=0) as saver:
        chain(saver, at("a"), 20)
        put(saver, at("a"), {"n": "x" * 100_000, "m": 1})
        asking().compile(checkpointer=saver).invoke({"trail": []}, at("b"))
        put(saver, at("x" * 200), {"n": 1})
        admin = ThreadAdmin(saver)
        counting.reset()

        await listed(admin.threads())
        assert counting.taken() == {"LIST": 1, "GET": 1}
        await admin.find("a")
        assert counting.taken() == {"LIST": 2}
        await admin.find("x" * 150)
        assert counting.taken() == {"LIST": 3, "GET": 1}
        await listed(admin.activity("a"))
        assert (counting.rounds, counting.taken()) == (2, {"LIST": 1, "GET": 1})
        await listed(admin.activity("b"))
        assert (counting.rounds, counting.taken()) == (2, {"LIST": 1, "GET": 2})
        await listed(admin.activity())
        assert counting.taken() == {"LIST": 1 + 3, "GET": 1 + 1 + 2 + 1}
        await admin.checkpoint("a")
        assert (counting.rounds, counting.taken()) == (2, {"LIST": 1, "GET": 2})
        await listed(admin.history("a", limit=5))
        assert counting.taken() == {"LIST": 1, "GET": 6}
        newest, before = (await admin.checkpoint_ids("a"))[:2]
        assert counting.taken() == {"LIST": 1}
        await admin.diff("a", before, newest)
        assert counting.taken() == {"LIST": 2, "GET": 3}
        await admin.namespaces("b")
        assert counting.taken() == {"LIST": 1}
        await listed(admin.usage())
        assert counting.taken() == {"LIST": 1, "GET": 1}
        await admin.prune("a", keep_last=3, dry_run=True)
        assert counting.taken() == {"LIST": 1}
        await admin.prune("a", keep_last=3)
        assert counting.taken() == {"LIST": 1, "DELETE": 1}
        await admin.delete("a", dry_run=True)
        assert counting.taken() == {"LIST": 1}
        await admin.delete("a")
        assert counting.taken() == {"LIST": 1 + 2, "DELETE": 2}


async def test_the_saver_that_is_looked_through_puts_as_before(saver: S3Saver) -> None:
    """What the operator's calls read leaves no trace in the saver: delta snapshots stay delta snapshots."""
    graph = delta(every=2).compile(checkpointer=saver)
    graph.invoke({}, at("t") | {"recursion_limit": 50})
    admin = ThreadAdmin(saver)
    for view in await listed(admin.history("t")):
        await admin.delta_writes(view)
    [activity] = await listed(admin.activity("t"))

    graph.invoke({}, at("t") | {"recursion_limit": 50})

    assert activity.status is ThreadStatus.IDLE
    assert graph.get_state(at("t")).values["log"] == [f"{name}{n}" for n in range(1, 13) for name in ("alpha", "zeta")]
