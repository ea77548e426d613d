"""One superstep per call, on every store: what runs, what is merged, what is committed, and what it costs."""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from s3_checkpoint import (
    END,
    HALT,
    NO_STEP,
    ActiveSnapshot,
    Advance,
    Checkpoint,
    Checkpointer,
    ConfigurationError,
    Graph,
    Interrupted,
    InvalidArgumentError,
    MemoryStore,
    Next,
    S3Checkpointer,
    S3Settings,
    Send,
    StateEncodingError,
    StoreUnavailableError,
    Task,
    connect,
    run_superstep,
    run_to_end,
)
from s3_checkpoint._s3.client import client_for
from s3_checkpoint.graph import Goto
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing import (
    AnswerLost,
    Unanswered,
    state_put,
)


class Log(BaseModel):
    lines: list[str] = []


def append(state: Log, update: str) -> Log:
    return Log(lines=[*state.lines, update])


def going(goto: Goto) -> Any:
    """A node that notes its name and payload, and goes where it is told."""

    async def node(state: Log, task: Task) -> Next:
        return Next(task.node_name if task.payload is None else f"{task.node_name}({task.payload})", goto)

    return node


def graph_of(start: str = "a", /, **routes: Goto) -> Graph[Log]:
    return Graph(start=start, nodes={name: going(goto) for name, goto in routes.items()}, apply=append)


@pytest.fixture
def checkpointer(store: ObjectStore) -> S3Checkpointer[Log]:
    return S3Checkpointer(Log, store)


@pytest.fixture
def run_id() -> UUID:
    return uuid4()


async def test_each_call_is_one_step(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """Step 0 is the initial state with the start node active; then each call runs one superstep."""
    graph = graph_of(a="b", b=END)

    begun = await run_superstep(checkpointer, graph, run_id, initial=Log(lines=["begin"]))
    after_a = await run_superstep(checkpointer, graph, run_id)
    after_b = await run_superstep(checkpointer, graph, run_id)

    assert (begun.step, begun.state.lines, begun.active) == (0, ["begin"], (ActiveSnapshot(node_name="a"),))
    assert (after_a.step, after_a.state.lines, after_a.active) == (1, ["begin", "a"], (ActiveSnapshot(node_name="b"),))
    assert (after_b.step, after_b.state.lines, after_b.finished) == (2, ["begin", "a", "b"], True)
    assert begun.committed
    assert after_b.committed
    assert await checkpointer.list(run_id) == [0, 1, 2]
    assert await checkpointer.load_active(run_id, 2) == [ActiveSnapshot(node_name="__end__")]


async def test_a_run_can_be_named_by_text(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    begun = await run_superstep(checkpointer, graph_of(a=END), str(run_id).upper(), initial=Log())
    end = await run_to_end(checkpointer, graph_of(a=END), str(run_id))

    assert begun.run_id == end.run_id == run_id
    assert end.finished


async def test_a_finished_run_is_never_run_again(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    graph = graph_of(a=END)
    await run_to_end(checkpointer, graph, run_id, initial=Log())

    again = await run_superstep(checkpointer, graph, run_id, initial=Log(lines=["another"]), resume_from=1)

    assert (again.finished, again.committed, again.state.lines) == (True, False, ["a"])
    assert await checkpointer.list(run_id) == [0, 1]


@pytest.mark.parametrize(
    ("goto", "then"),
    [
        ("b", ["b"]),
        (["b", "c"], ["b", "c"]),
        (("c", "b", "b"), ["c", "b", "b"]),
        (Send("b", 7), ["b(7)"]),
        ([("b", 1), Send("b", 2), "c"], ["b(1)", "b(2)", "c"]),
    ],
)
async def test_tasks_run_in_the_order_in_which_they_are_named(
    checkpointer: S3Checkpointer[Log], run_id: UUID, goto: Goto, then: list[str]
) -> None:
    graph = graph_of(a=goto, b=HALT, c=HALT)

    end = await run_to_end(checkpointer, graph, run_id, initial=Log())

    assert end.state.lines == ["a", *then]
    assert end.finished


@pytest.mark.parametrize("nowhere", [HALT, [], END])
async def test_a_run_ends_when_no_branch_is_left(
    checkpointer: S3Checkpointer[Log], run_id: UUID, nowhere: Goto
) -> None:
    end = await run_to_end(checkpointer, graph_of(a=nowhere), run_id, initial=Log())

    assert end.finished
    assert end.active == (ActiveSnapshot(node_name=END),)


async def test_halt_ends_one_branch_and_end_ends_them_all(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    halting = graph_of(a=["b", "c"], b=HALT, c="d", d=END)
    ending = graph_of(a=["b", "c"], b=END, c="d", d=END)

    continued = await run_to_end(checkpointer, halting, run_id, initial=Log())
    ended = await run_to_end(checkpointer, ending, uuid4(), initial=Log())

    assert continued.state.lines == ["a", "b", "c", "d"]
    assert ended.state.lines == ["a", "b", "c"]


async def test_tasks_of_a_superstep_run_together_and_merge_in_task_order(run_id: UUID) -> None:
    """The first task ends last, and still merges first; each waits for the other, so neither runs alone."""
    arrived = [asyncio.Event(), asyncio.Event()]
    second_done = asyncio.Event()

    async def fan(state: Log, task: Task) -> Next:
        return Next(None, ["meet", "meet"])

    async def meet(state: Log, task: Task) -> Next:
        arrived[task.index].set()
        await asyncio.gather(*(event.wait() for event in arrived))
        if task.index == 0:
            await second_done.wait()
        second_done.set()
        return Next(f"{task.index} saw {state.lines}", END)

    graph = Graph(start="fan", nodes={"fan": fan, "meet": meet}, apply=append)
    end = await run_to_end(S3Checkpointer(Log, MemoryStore()), graph, run_id, initial=Log())

    assert end.state.lines == ["0 saw []", "1 saw []"]


async def test_a_node_cannot_change_the_state_behind_the_reducer(run_id: UUID) -> None:
    async def scribbles(state: Log, task: Task) -> Next:
        state.lines.append("scribble")
        return Next(None, END)

    async def fan(state: Log, task: Task) -> Next:
        return Next(None, ["scribbles", "scribbles"])

    graph = Graph(start="fan", nodes={"fan": fan, "scribbles": scribbles}, apply=append)
    end = await run_to_end(S3Checkpointer(Log, MemoryStore()), graph, run_id, initial=Log(lines=["kept"]))

    assert end.state.lines == ["kept"]


async def test_exceptions_of_a_task_come_through_and_nothing_is_committed(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    """The other tasks are cancelled, and have ended when the error arrives; the note says where it happened."""
    waiting, cancelled = asyncio.Event(), asyncio.Event()

    async def fan(state: Log, task: Task) -> Next:
        return Next(None, ["waits", "fails"])

    async def waits(state: Log, task: Task) -> Next:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Next(None, END)

    async def fails(state: Log, task: Task) -> Next:
        await waiting.wait()
        raise RuntimeError("the tool is down")

    graph = Graph(start="fan", nodes={"fan": fan, "waits": waits, "fails": fails}, apply=append)

    with pytest.raises(RuntimeError, match="the tool is down") as raised:
        await run_to_end(checkpointer, graph, run_id, initial=Log())

    assert cancelled.is_set()
    assert raised.value.__notes__ == [f"in node `fails`, task 1 of step 2, run {run_id}"]
    assert await checkpointer.list(run_id) == [0, 1]


async def test_going_to_an_unknown_node_is_a_clear_error_before_the_commit(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    with pytest.raises(ConfigurationError, match=r"node `a` goes to `bb`, which is not a node; the nodes are `a`, `b`"):
        await run_to_end(checkpointer, graph_of(a="bb", b=END), run_id, initial=Log())

    assert await checkpointer.list(run_id) == [0]


async def test_a_stored_task_that_the_graph_no_longer_has_is_a_clear_error(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    await run_to_end(checkpointer, graph_of(a="renamed", renamed=END), run_id, initial=Log(), max_supersteps=1)

    with pytest.raises(ConfigurationError, match="waits for `renamed`, which is not a node"):
        await run_superstep(checkpointer, graph_of(a="b", b=END), run_id)


async def test_a_node_that_does_not_return_next_is_a_clear_error(run_id: UUID) -> None:
    async def forgets(state: Log, task: Task) -> Next:
        return None  # type: ignore[return-value]

    graph = Graph(start="forgets", nodes={"forgets": forgets}, apply=append)

    with pytest.raises(ConfigurationError, match="node `forgets` must return Next, and returned NoneType"):
        await run_to_end(S3Checkpointer(Log, MemoryStore()), graph, run_id, initial=Log())


async def test_a_payload_that_is_not_json_is_a_clear_error(run_id: UUID) -> None:
    graph = graph_of(a=[("b", 1), ("b", {"secret": object(), "word": "hunter2"})], b=END)

    with pytest.raises(StateEncodingError, match=r"not dict.*\$active\[1\]\.payload") as raised:
        await run_to_end(S3Checkpointer(Log, MemoryStore()), graph, run_id, initial=Log())

    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


async def test_a_stored_node_name_is_told_escaped(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """It is not ours: it could move the cursor of a terminal that shows the log."""
    await checkpointer.commit(run_id, 0, Log(), [ActiveSnapshot(node_name="a\x1b[2J\u202e")])

    with pytest.raises(ConfigurationError, match="waits for") as raised:
        await run_superstep(checkpointer, graph_of(a=END), run_id)

    assert str(raised.value).isprintable()


def test_a_graph_names_its_mistakes_when_it_is_made() -> None:
    with pytest.raises(InvalidArgumentError, match="must be one of the nodes"):
        graph_of("start", a=END)
    with pytest.raises(InvalidArgumentError, match="reserved name"):
        Graph(start="a", nodes={"a": going(END), END: going(END)}, apply=append)


async def test_an_interrupt_holds_until_it_is_resumed_with_the_humans_update(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    """Committed up to the interrupt; asking again runs nothing; resuming continues at exactly those tasks."""
    graph = graph_of(a=[("review", "draft"), "b"], review=END, b=HALT)
    before = {"review"}

    first = await run_to_end(checkpointer, graph, run_id, initial=Log(), interrupt_before=before)
    again = await run_superstep(checkpointer, graph, run_id, interrupt_before=before)
    resumed = await run_superstep(
        checkpointer, graph, run_id, interrupt_before=before, resume_from=first.step, update="human: yes"
    )

    assert isinstance(first, Interrupted)
    assert isinstance(again, Interrupted)
    assert (first.step, again.step, again.committed) == (1, 1, False)
    assert resumed.state.lines == ["a", "human: yes", "review(draft)", "b"]
    assert resumed.finished
    assert await checkpointer.list(run_id) == [0, 1, 2]


REVIEWS = {"review", "pay"}


def graph_with_two_reviews() -> Graph[Log]:
    return graph_of(a="review", review="b", b="pay", pay=END)


async def waiting_run(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """At step 1, before `review`."""
    at = await run_to_end(checkpointer, graph_with_two_reviews(), run_id, initial=Log(), interrupt_before=REVIEWS)
    assert isinstance(at, Interrupted)
    assert at.step == 1


async def test_a_second_click_never_passes_the_next_interrupt(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """The same answer twice: the second one finds the run waiting for another answer, and gives none."""
    graph = graph_with_two_reviews()
    await waiting_run(checkpointer, run_id)

    answers = [
        await run_to_end(checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=1, update="human")
        for _ in range(2)
    ]

    assert [answer.superseded for answer in answers] == [False, True]
    assert [answer.step for answer in answers] == [3, 3]
    assert answers[1].state.lines == ["a", "human", "review", "b"]
    assert await checkpointer.list(run_id) == [0, 1, 2, 3]


@pytest.mark.parametrize("landed", [True, False])
async def test_an_answer_whose_outcome_was_lost_is_given_again_and_counts_once(run_id: UUID, landed: bool) -> None:
    """The store never says whether the commit landed; the same call again applies the update only if it did not."""
    memory = MemoryStore()
    await waiting_run(S3Checkpointer(Log, memory), run_id)
    unanswered = S3Checkpointer(Log, Unanswered(memory, state_put(), landed=landed))
    graph = graph_with_two_reviews()

    async def answer(checkpointer: S3Checkpointer[Log]) -> Advance[Log]:
        return await run_to_end(
            checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=1, update="human", max_supersteps=1
        )

    with pytest.raises(StoreUnavailableError) as raised:
        await answer(unanswered)
    again = await answer(S3Checkpointer(Log, memory))

    assert raised.value.outcome_unknown
    assert (again.superseded, again.step) == (landed, 2)
    assert again.state.lines == ["a", "human", "review"]


async def test_an_answer_whose_put_was_repeated_by_the_client_is_committed(run_id: UUID) -> None:
    """A 412 that the call's own first attempt caused is no other answer."""
    memory = MemoryStore()
    await waiting_run(S3Checkpointer(Log, memory), run_id)

    at = await run_superstep(
        S3Checkpointer(Log, AnswerLost(memory, state_put())),
        graph_with_two_reviews(),
        run_id,
        interrupt_before=REVIEWS,
        resume_from=1,
        update="human",
    )

    assert (at.committed, at.superseded) == (True, False)
    assert at.state.lines == ["a", "human", "review"]


@pytest.mark.parametrize("updates", [("yes", "no"), ("yes", "yes")], ids=["different", "the same"])
@pytest.mark.parametrize("call", [run_superstep, run_to_end])
async def test_exactly_one_of_two_concurrent_answers_counts_and_the_other_is_superseded(
    checkpointer: S3Checkpointer[Log], run_id: UUID, updates: tuple[str, str], call: Any
) -> None:
    """Both have read the run before either commits; the loser applies nothing, and goes no further."""
    together = asyncio.Barrier(2)

    async def review(state: Log, task: Task) -> Next:
        async with asyncio.timeout(120):
            await together.wait()
        return Next("review", "b")

    nodes = {**graph_with_two_reviews().nodes, "review": review}
    graph = Graph(start="a", nodes=nodes, apply=append)
    await waiting_run(checkpointer, run_id)

    answers = await asyncio.gather(
        *(call(checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=1, update=text) for text in updates)
    )

    (winner,) = (answer for answer in answers if not answer.superseded)
    (loser,) = (answer for answer in answers if answer.superseded)
    assert not loser.committed
    applied = updates[answers.index(winner)]
    stored = await checkpointer.load(run_id)
    assert stored is not None
    assert stored.lines[:3] == ["a", applied, "review"]
    assert stored.lines.count("yes") + stored.lines.count("no") == 1
    assert loser.state.lines[:3] == ["a", applied, "review"]
    assert (await checkpointer.list(run_id))[-1] == (2 if call is run_superstep else 3)


async def test_an_answer_that_is_overtaken_takes_the_run_no_further(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    """The run has become another one than its sender has seen: `run_to_end` says so instead of continuing."""
    await waiting_run(checkpointer, run_id)

    async def overtaken(state: Log, task: Task) -> Next:
        await run_superstep(
            checkpointer, graph_with_two_reviews(), run_id, interrupt_before=REVIEWS, resume_from=1, update="yes"
        )
        return Next("review", "b")

    graph = Graph(start="a", nodes={**graph_with_two_reviews().nodes, "review": overtaken}, apply=append)
    at = await run_to_end(checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=1, update="no")

    assert (at.superseded, at.committed, at.step) == (True, False, 2)
    assert at.state.lines == ["a", "yes", "review"]
    assert await checkpointer.list(run_id) == [0, 1, 2]


async def test_a_run_that_waits_for_nobody_takes_no_answer(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """Not even at the step that the answer names: nothing runs, and nothing is applied."""
    graph = graph_with_two_reviews()
    await run_superstep(checkpointer, graph, run_id, initial=Log())

    at = await run_superstep(checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=0, update="human")
    on = await run_to_end(checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=0, update="human")
    with pytest.raises(InvalidArgumentError, match="interrupt_before must name the nodes"):
        await run_superstep(checkpointer, graph, run_id, resume_from=0, update="human")

    assert (at.superseded, at.committed, at.step, at.state.lines) == (True, False, 0, [])
    assert (on.superseded, on.step) == (True, 0)
    assert await checkpointer.list(run_id) == [0]


async def test_an_answer_without_an_update_continues_too(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    await waiting_run(checkpointer, run_id)

    at = await run_superstep(checkpointer, graph_with_two_reviews(), run_id, interrupt_before=REVIEWS, resume_from=1)

    assert (at.committed, at.state.lines) == (True, ["a", "review"])


@pytest.mark.parametrize("step", [-1, True, "1", 1.0])
async def test_an_answer_to_what_is_no_step_is_superseded(
    checkpointer: S3Checkpointer[Log], run_id: UUID, step: Any
) -> None:
    await waiting_run(checkpointer, run_id)

    with pytest.raises(InvalidArgumentError, match="resume_from must be a step"):
        await run_superstep(
            checkpointer, graph_with_two_reviews(), run_id, interrupt_before=REVIEWS, resume_from=step, update="human"
        )

    assert await checkpointer.list(run_id) == [0, 1]


@pytest.mark.parametrize("call", [run_superstep, run_to_end])
async def test_an_answer_to_a_step_that_is_not_reached_or_to_no_run_is_refused(
    checkpointer: S3Checkpointer[Log], run_id: UUID, call: Any
) -> None:
    """Nor does it begin a run that is gone."""
    await waiting_run(checkpointer, run_id)
    graph = graph_with_two_reviews()

    with pytest.raises(InvalidArgumentError, match=r"resume_from is ahead of run .*, which is at step 1"):
        await call(checkpointer, graph, run_id, interrupt_before=REVIEWS, resume_from=2, update="human")
    with pytest.raises(InvalidArgumentError, match=r"resume_from is ahead of run .*, which has no step"):
        await call(checkpointer, graph, uuid4(), initial=Log(), interrupt_before=REVIEWS, resume_from=0)

    assert await checkpointer.list(run_id) == [0, 1]


async def test_a_graph_that_goes_in_a_circle_ends_at_max_steps(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """With an error that says so; a larger bound takes it further."""
    graph = graph_of(a="a")

    with pytest.raises(InvalidArgumentError, match=r"max_steps is reached: run .* is at step 3 and not finished"):
        await run_to_end(checkpointer, graph, run_id, initial=Log(), max_steps=3)
    with pytest.raises(InvalidArgumentError, match="max_steps is reached"):
        await run_superstep(checkpointer, graph, run_id, max_steps=3)
    further = await run_superstep(checkpointer, graph, run_id, max_steps=4)

    assert further.step == 4
    assert await checkpointer.list(run_id) == [0, 1, 2, 3, 4]


async def test_a_run_may_finish_or_wait_at_max_steps(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    """The bound is on what runs, not on what is asked."""
    ends = graph_of(a="b", b=END)

    end = await run_to_end(checkpointer, ends, run_id, initial=Log(), max_steps=2)
    again = await run_superstep(checkpointer, ends, run_id, max_steps=1)
    waits = await run_to_end(checkpointer, ends, uuid4(), initial=Log(), interrupt_before={"b"}, max_steps=1)

    assert (end.finished, end.step, again.finished) == (True, 2, True)
    assert isinstance(waits, Interrupted)


async def test_the_default_bound_is_10_000_steps(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    graph = graph_of(a="a")
    await checkpointer.commit(run_id, 9_999, Log(), [ActiveSnapshot(node_name="a")])

    last = await run_superstep(checkpointer, graph, run_id)
    with pytest.raises(InvalidArgumentError, match="max_steps is reached"):
        await run_superstep(checkpointer, graph, run_id)

    assert last.step == 10_000


async def test_an_interrupt_before_the_start_node_comes_at_once(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    at = await run_superstep(checkpointer, graph_of(a=END), run_id, initial=Log(), interrupt_before={"a"})

    assert isinstance(at, Interrupted)
    assert at.step == 0


async def test_arguments_that_cannot_be_are_refused_and_nothing_is_written(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    graph = graph_of(a=END)

    with pytest.raises(InvalidArgumentError, match="initial is needed"):
        await run_superstep(checkpointer, graph, run_id)
    with pytest.raises(InvalidArgumentError, match="update goes with resume_from") as raised:
        await run_superstep(checkpointer, graph, run_id, initial=Log(), update="hunter2")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(InvalidArgumentError, match="expected_step must be that of resume_from"):
        await run_superstep(checkpointer, graph, run_id, expected_step=1, resume_from=2)
    with pytest.raises(InvalidArgumentError, match="max_steps must be an int of 1 or more"):
        await run_superstep(checkpointer, graph, run_id, initial=Log(), max_steps=0)
    with pytest.raises(InvalidArgumentError, match=r"expected_step is ahead of run .* has no step"):
        await run_superstep(checkpointer, graph, run_id, initial=Log(), expected_step=4)
    with pytest.raises(ConfigurationError, match="interrupt_before names `x`"):
        await run_superstep(checkpointer, graph, run_id, initial=Log(), interrupt_before={"x"})
    with pytest.raises(InvalidArgumentError, match="max_supersteps must be 1 or more"):
        await run_to_end(checkpointer, graph, run_id, initial=Log(), max_supersteps=0)
    assert await checkpointer.list(run_id) == []


async def test_a_late_duplicate_runs_nothing(checkpointer: S3Checkpointer[Log], run_id: UUID) -> None:
    ran = []

    async def counts(state: Log, task: Task) -> Next:
        ran.append(task.step)
        return Next("x", "counts")

    graph = Graph(start="counts", nodes={"counts": counts}, apply=append)
    for step in (NO_STEP, 0, 1):
        await run_superstep(checkpointer, graph, run_id, initial=Log(), expected_step=step)

    late = [
        await run_superstep(checkpointer, graph, run_id, initial=Log(), expected_step=step) for step in (NO_STEP, 0, 1)
    ]

    assert ran == [1, 2]
    assert [(at.superseded, at.committed, at.step) for at in late] == [(True, False, 2)] * 3


@pytest.mark.parametrize("content", ["the same", "different"])
async def test_exactly_one_of_many_workers_commits_a_superstep_and_all_see_its_result(
    checkpointer: S3Checkpointer[Log], run_id: UUID, content: str
) -> None:
    """A conflict is an outcome, and so is coming second with the same content."""
    together = asyncio.Barrier(8)

    async def meets(state: Log, task: Task) -> Next:
        await together.wait()
        return Next("x" if content == "the same" else str(uuid4()), HALT)

    graph = Graph(start="meets", nodes={"meets": meets}, apply=append)
    await run_superstep(checkpointer, graph, run_id, initial=Log())

    results = await asyncio.gather(*(run_superstep(checkpointer, graph, run_id) for _ in range(8)))

    assert sum(result.committed for result in results) == 1
    assert [result.superseded for result in results] == [not result.committed for result in results]
    assert {result.step for result in results} == {1}
    stored = await checkpointer.load(run_id)
    assert all(result.state == stored for result in results)


async def test_a_warm_superstep_makes_two_puts_and_the_reads_of_resume(settings: S3Settings, run_id: UUID) -> None:
    """Counted where the SDK sends them, repeats included."""
    graph = graph_of(a="b", b="a")
    sent: Counter[str] = Counter()
    async with client_for(settings) as client:
        client.meta.events.register("before-send.s3", lambda event_name, **_: sent.update([event_name.split(".")[-1]]))
        async with connect(Log, settings, client=client) as checkpointer:

            async def cost(**arguments: Any) -> dict[str, int]:
                sent.clear()
                await run_superstep(checkpointer, graph, run_id, **arguments)
                return dict(sent)

            begin = await cost(initial=Log())
            warm = [await cost(), await cost(), await cost()]
            late = await cost(expected_step=1)

            sent.clear()
            await run_to_end(checkpointer, graph, run_id, max_supersteps=3)
            several = dict(sent)

    assert begin == {"ListObjectsV2": 1, "PutObject": 2}
    assert warm == [{"ListObjectsV2": 1, "GetObject": 1, "PutObject": 2}] * 3
    assert late == {"GetObject": 2, "HeadObject": 1, "ListObjectsV2": 1}
    assert several == {"ListObjectsV2": 1, "GetObject": 1, "PutObject": 6}


async def test_run_to_end_continues_from_what_another_worker_committed(run_id: UUID) -> None:
    checkpointer = S3Checkpointer(Log, MemoryStore())
    other = graph_of("a", a="b", b=END)

    async def overtaken(state: Log, task: Task) -> Next:
        await run_superstep(checkpointer, other, run_id)
        return Next("mine", "b")

    graph = Graph(start="a", nodes={"a": overtaken, "b": going(END)}, apply=append)

    end = await run_to_end(checkpointer, graph, run_id, initial=Log())

    assert end.state.lines == ["a", "b"]


async def test_run_to_end_stops_at_its_bound_and_continues_when_called_again(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    graph = graph_of(a="a")

    first = await run_to_end(checkpointer, graph, run_id, initial=Log(), max_supersteps=3)
    second = await run_to_end(checkpointer, graph, run_id, max_supersteps=2)

    assert (first.step, first.finished, second.step) == (3, False, 5)


class ThreeCalls(Checkpointer[Log]):
    """What a third party writes who implements only what the trait requires."""

    def __init__(self) -> None:
        self.states: dict[tuple[UUID | str, int], Log] = {}

    async def save(self, run_id: UUID | str, step: int, state: Log) -> None:
        self.states[run_id, step] = state.model_copy(deep=True)

    async def load(self, run_id: UUID | str, step: int | None = None) -> Log | None:
        steps = await self.list(run_id)
        return self.states.get((run_id, steps[-1] if step is None and steps else step or 0))

    async def list(self, run_id: UUID | str) -> list[int]:
        return sorted(step for run, step in self.states if run == run_id)


class FiveCalls(ThreeCalls):
    """And one who stores active tasks too; a crash can be asked for between the two writes of a step."""

    def __init__(self, *, crash_at: int | None = None) -> None:
        super().__init__()
        self.active: dict[tuple[UUID | str, int], list[ActiveSnapshot]] = {}
        self.crash_at = crash_at

    async def save(self, run_id: UUID | str, step: int, state: Log) -> None:
        if step == self.crash_at:
            self.crash_at = None
            raise ConnectionError("crashed")
        await super().save(run_id, step, state)

    async def save_active(self, run_id: UUID | str, step: int, active: Sequence[ActiveSnapshot]) -> None:
        self.active[run_id, step] = [*active]

    async def load_active(self, run_id: UUID | str, step: int) -> list[ActiveSnapshot]:
        return self.active.get((run_id, step), [])


class SevenCalls(ThreeCalls):
    """And one with `commit` and `resume` of its own, who never sees the two writes of the trait."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[UUID | str, Checkpoint[Log]] = {}

    async def save(self, run_id: UUID | str, step: int, state: Log) -> None:
        raise AssertionError("commit is there")

    async def commit(self, run_id: UUID | str, step: int, state: Log, active: Sequence[ActiveSnapshot]) -> None:
        await super().save(run_id, step, state)
        self.newest[run_id] = Checkpoint(UUID(str(run_id)), step, state, tuple(active))

    async def resume(self, run_id: UUID | str, *, known_step: int | None = None) -> Checkpoint[Log] | None:
        return self.newest.get(run_id)


async def test_any_checkpointer_will_do(run_id: UUID) -> None:
    for checkpointer in (ThreeCalls(), FiveCalls(), SevenCalls()):
        end = await run_to_end(checkpointer, graph_of(a=["b", ("c", 1)], b=HALT, c=END), run_id, initial=Log())

        assert end.finished
        assert end.state.lines == ["a", "b", "c(1)"]
        assert await checkpointer.list(run_id) == [0, 1, 2]


async def test_a_resume_without_stored_tasks_begins_at_the_start_node(run_id: UUID) -> None:
    """As the trait promises for checkpointers that do not store them."""
    checkpointer = ThreeCalls()
    await checkpointer.save(run_id, 4, Log(lines=["so far"]))

    at = await run_superstep(checkpointer, graph_of(a="b", b=END), run_id)

    assert (at.step, at.state.lines) == (5, ["so far", "a"])


async def test_a_saved_step_without_tasks_resumes_at_the_start_node_too(
    checkpointer: S3Checkpointer[Log], run_id: UUID
) -> None:
    await checkpointer.save(run_id, 4, Log(lines=["so far"]))

    at = await run_superstep(checkpointer, graph_of(a="b", b=END), run_id)

    assert (at.step, at.state.lines) == (5, ["so far", "a"])


async def test_a_crash_between_the_writes_of_the_traits_calls_leaves_the_step_before(run_id: UUID) -> None:
    """The active tasks are written first, so no step is ever visible without its own."""
    checkpointer = FiveCalls(crash_at=2)
    graph = graph_of(a="b", b="c", c=END)

    with pytest.raises(ConnectionError):
        await run_to_end(checkpointer, graph, run_id, initial=Log())
    end = await run_to_end(checkpointer, graph, run_id)

    assert end.state.lines == ["a", "b", "c"]
