"""`watch`: what is committed while it looks is shown, a line each, for one LIST a look."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pexpect
import pytest
from langchain_core.messages import HumanMessage
from langgraph.types import Command

from s3_checkpoint import ActiveSnapshot, MemoryStore, S3Settings, connect
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.cli.bucket import OpenBucket
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.watch import new_checkpoints, new_steps
from s3_checkpoint.langgraph import S3Saver, ThreadAdmin, ThreadStatus
from s3_checkpoint.testing import Request, Send, StoreWrapper
from s3_checkpoint.testing.wrappers import T
from tests.command_line import FIRST, Cli
from tests.langgraph.counting import Counting, at
from tests.langgraph.graphs import asking, chat


def looks(*actions: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
    """A pause in which one action after another is done; a look too many is a failure."""
    left = iter(actions)

    async def pause() -> None:
        action = next(left, None)
        assert action is not None, "nothing came of the last action"
        await action()

    return pause


async def nothing() -> None:
    pass


async def test_each_step_is_shown_once_for_one_list_a_look() -> None:
    counting = Counting(MemoryStore())
    keys = RunKeys("", FIRST)
    async with connect(dict[str, Any], store=counting) as checkpointer:
        bucket = OpenBucket(checkpointer, S3Settings(bucket="x-bucket"))
        tasks = [ActiveSnapshot(node_name="plan")]

        async def commit(*steps: int) -> None:
            for step in steps:
                await checkpointer.commit(FIRST, step, {"n": step}, tasks)
            counting.reset()

        await commit(0, 1)
        pause = looks(nothing, lambda: commit(2, 3), nothing, lambda: commit(4), nothing)
        seen = []
        async with aclosing(new_steps(bucket, keys, pause)) as views:
            async for view in views:
                assert not isinstance(view, str)
                seen.append(view.step)
                if view.step == 1:
                    counting.reset()
                if view.step == 3:
                    assert counting.taken() == {"LIST": 1, "GET": 2}
                if view.step == 4:
                    break

    assert seen == [1, 2, 3, 4]
    assert counting.taken() == {"LIST": 1, "GET": 1}


async def test_a_thread_is_followed_to_its_interrupt_and_on() -> None:
    """The pending write of an interrupt is no checkpoint, and is shown all the same."""
    with S3Saver(MemoryStore()) as saver:
        graph = asking().compile(checkpointer=saver)

        async def invoke(given: Any) -> None:
            await asyncio.to_thread(graph.invoke, given, at("t"))

        pause = looks(lambda: invoke({"trail": []}), nothing, lambda: invoke(Command(resume="one")), nothing)
        seen = []
        async with aclosing(new_checkpoints(ThreadAdmin(saver), "t", "", pause)) as views:
            async for view in views:
                assert not isinstance(view, str)
                seen.append((view.step, view.status, len(view.writes)))
                if len(view.writes) > 1 and view.step == 0:
                    break

    assert seen[0][:2] == (0, ThreadStatus.INTERRUPTED)
    assert seen[-1][:2] == (0, ThreadStatus.INTERRUPTED)


async def test_looks_at_a_thread_are_one_list_each() -> None:
    counting = Counting(MemoryStore())
    with S3Saver(counting) as saver:
        graph = chat().compile(checkpointer=saver)
        for text in "abc":
            graph.invoke({"messages": [HumanMessage(text, id=text)]}, at("t"))
        admin = ThreadAdmin(saver)
        [newest] = await admin.checkpoints_since("t", None)
        counting.reset()

        assert await admin.checkpoints_since("t", newest[0]) == [newest]
        assert counting.taken() == {"LIST": 1}
        graph.invoke({"messages": [HumanMessage("d", id="d")]}, at("t"))
        assert len(await admin.checkpoints_since("t", newest[0])) == 4


class Silent(StoreWrapper):
    """A store that does not answer LISTs while `silent`."""

    silent = False

    async def around(self, request: Request, send: Send[T]) -> T:
        from s3_checkpoint import StoreUnavailableError

        if self.silent and request.verb == "ListObjectsV2":
            raise StoreUnavailableError("ListObjectsV2", "b", "k", outcome_unknown=False, detail="down")
        return await send()


async def test_a_store_that_does_not_answer_is_asked_again() -> None:
    """It is said, and the next step is shown when the answers come back."""
    store = Silent(MemoryStore())
    async with connect(dict[str, Any], store=store) as checkpointer:
        bucket = OpenBucket(checkpointer, S3Settings(bucket="x-bucket"))
        await checkpointer.commit(FIRST, 0, {}, [])

        async def fall_silent() -> None:
            store.silent = True

        async def come_back() -> None:
            store.silent = False
            await checkpointer.commit(FIRST, 1, {}, [])

        pause = looks(fall_silent, come_back, nothing)
        seen: list[Any] = []
        async with aclosing(new_steps(bucket, RunKeys("", FIRST), pause)) as views:
            async for view in views:
                seen.append(view if isinstance(view, str) else view.step)
                if len(seen) == 3:
                    break

    assert seen == [0, "no answer, trying again: down", 1]


def test_watch_on_a_terminal_shows_steps_as_they_come_and_ends_on_ctrl_c(own_runs: Cli) -> None:
    """With what looking costs; Ctrl-C is no failure."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "s3_checkpoint.cli", "watch", "aaaa0", "--interval", "200s"],
        env={**os.environ, **own_runs.env, "TERM": "dumb", "NO_COLOR": "1"},
        encoding="utf-8",
        dimensions=(24, 200),
        timeout=180,
    )
    child.expect(r"every 200 s until Ctrl-C: 18 LISTs an hour, about \$0.000 on S3 Standard")
    child.expect(r"step 15  211 B  next: plan")
    child.sendintr()
    child.expect("stopped after 1 lines")
    child.expect(pexpect.EOF)
    child.close()

    assert child.exitstatus == 0


def test_watch_in_a_pipe_writes_a_json_object_for_each(own_runs: Cli) -> None:
    """`-n 1`: the newest step, and no more."""
    done = own_runs("watch", "aaaa0", "-n", "1")

    assert done.exit_code == 0
    assert json.loads(done.stdout)["step"] == 15
    assert "1,800 LISTs an hour, about $0.009" in done.stderr


def test_watch_tells_runs_from_threads(own_runs: Cli) -> None:
    """Where both begin so, it is the run, unless `--thread` says otherwise."""
    with S3Saver(own_runs.settings()) as saver:
        asking().compile(checkpointer=saver).invoke({"trail": []}, at(str(FIRST)))
        asking().compile(checkpointer=saver).invoke({"trail": []}, at("support/1"))

    assert json.loads(own_runs("watch", str(FIRST), "-n", "1").stdout)["step"] == 15
    assert json.loads(own_runs("watch", str(FIRST), "--thread", "-n", "1").stdout)["status"] == "interrupted"
    assert json.loads(own_runs("watch", "support", "-n", "1").stdout)["thread_id"] == "support/1"
    shown = own_runs("watch", "support", "-n", "1", "--output", "table").stdout
    assert 'interrupted, next: both, waits for "first?"' in shown


@pytest.mark.parametrize("arguments", [["nothing-here"], ["aaaa0", "--interval", "0s"], ["aaaa"]])
def test_watch_of_what_is_not_there_or_too_often_is_wrong_usage(own_runs: Cli, arguments: list[str]) -> None:
    result = own_runs("watch", *arguments)

    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")


@pytest.mark.parametrize(("what", "code"), [("nope", ExitCode.USAGE), ("dddd", ExitCode.NOT_FOUND)])
def test_watch_of_what_is_not_there_speaks_of_runs_and_threads(own_runs: Cli, what: str, code: ExitCode) -> None:
    """With the commands that list them; a run id whose first step is still to come is waited for instead."""
    result = own_runs("watch", what)

    assert (result.exit_code, result.stdout) == (code, "")
    assert f"no run's and no thread's id begins with '{what}'" in result.stderr
    assert "`s3-checkpoint runs` and `s3-checkpoint threads` list them" in result.stderr
