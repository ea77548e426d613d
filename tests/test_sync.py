"""The sync facade: the same calls, for code without a loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import get_type_hints
from uuid import uuid4

import pytest
from pydantic import BaseModel

from s3_checkpoint import (
    END,
    ActiveSnapshot,
    Checkpoint,
    Graph,
    InvalidArgumentError,
    LifecycleError,
    MemoryStore,
    Next,
    Pruned,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StateEncodingError,
    StepConflictError,
    SyncS3Checkpointer,
    Task,
    connect,
    run_to_end,
)
from s3_checkpoint.connection import CheckpointerOptions, ConnectOptions


class Count(BaseModel):
    n: float = 0


@pytest.fixture
def checkpointer(settings: S3Settings) -> Iterator[SyncS3Checkpointer[Count]]:
    with SyncS3Checkpointer(Count, settings) as opened:
        yield opened


INSIDE = {"objects", "index", "commits", "prefix", "conditional_writes"}
"""Of the async checkpointer: not calls, but what other parts of the library work with."""
CALLS = {
    name: call
    for kind in (S3Checkpointer, RunAdmin)
    for name, call in inspect.getmembers(kind, inspect.isfunction)
    if not name.startswith("_")
}


def test_every_public_name_of_the_async_classes_is_there() -> None:
    there = {name for name in dir(SyncS3Checkpointer) if not name.startswith("_")}
    wanted = {name for kind in (S3Checkpointer, RunAdmin) for name in dir(kind) if not name.startswith("_")} - INSIDE

    assert there - wanted == {"close", "lease", "run"}
    assert wanted - there == set()


@pytest.mark.parametrize("name", CALLS)
def test_each_call_has_the_arguments_the_result_and_the_docstring_of_its_async_twin(name: str) -> None:
    twin, ours = CALLS[name], getattr(SyncS3Checkpointer, name)
    result = str(get_type_hints(twin)["return"]).replace("AsyncIterator", "Iterator").replace("S3Ch", "SyncS3Ch")

    assert ours.__doc__ == twin.__doc__
    assert inspect.signature(ours).parameters == inspect.signature(twin).parameters
    assert str(get_type_hints(ours)["return"]).replace(".sync.", ".checkpointer.") == result


def test_sync_checkpointer_takes_the_arguments_of_connect() -> None:
    ours, theirs = inspect.signature(SyncS3Checkpointer).parameters, inspect.signature(connect).parameters

    assert [*ours] == [*theirs]
    assert [(p.kind, p.default) for p in ours.values()] == [(p.kind, p.default) for p in theirs.values()]
    # One of another loop would be of no use.
    assert ConnectOptions.__optional_keys__ - CheckpointerOptions.__optional_keys__ == {"client"}
    with pytest.raises(TypeError, match=r"SyncS3Checkpointer\(\) got an unexpected keyword argument 'client'"):
        SyncS3Checkpointer(Count, "my-bucket", client=None)  # type: ignore[call-arg]


def test_a_memory_store_takes_the_place_of_the_bucket() -> None:
    run_id = uuid4()
    with SyncS3Checkpointer(Count, store=MemoryStore()) as checkpointer:
        checkpointer.commit(run_id, 0, Count(n=1), [])

        assert checkpointer.resume(run_id) == Checkpoint(run_id, 0, Count(n=1), ())
        assert checkpointer.with_namespace("sub").list(run_id) == []
    with pytest.raises(InvalidArgumentError, match="store="):
        SyncS3Checkpointer(Count, MemoryStore())  # type: ignore[arg-type]


def test_all_calls_of_the_checkpointer(checkpointer: SyncS3Checkpointer[Count]) -> None:
    run_id, task = uuid4(), ActiveSnapshot(node_name="a", payload=1)

    checkpointer.save(run_id, 0, Count(n=1))
    checkpointer.save_active(run_id, 0, [task])
    checkpointer.commit(run_id, 1, Count(n=2), [task])
    wrote_again = checkpointer.commit_or_confirm(run_id, 1, Count(n=2), [task])

    assert wrote_again is False
    assert checkpointer.load(run_id, 0) == Count(n=1)
    assert checkpointer.load(run_id) == Count(n=2)
    assert checkpointer.list(run_id) == [0, 1]
    assert checkpointer.load_active(run_id, 0) == [task]
    assert checkpointer.resume(run_id) == Checkpoint(run_id, 1, Count(n=2), (task,))


def test_all_calls_of_the_operator(checkpointer: SyncS3Checkpointer[Count]) -> None:
    run_id = uuid4()
    for step in range(12):
        checkpointer.commit(run_id, step, Count(n=step), [])

    forked = checkpointer.fork(run_id, 3)
    runs = sorted([run_id, forked], key=str)
    seen: list[Pruned] = []

    assert list(checkpointer.runs()) == runs
    assert {activity.run_id: activity.newest_step for activity in checkpointer.activity()} == {run_id: 11, forked: 0}
    assert [entry.state.n for entry in checkpointer.history(run_id)] == [*range(11, -1, -1)]
    assert [usage.run_id for usage in checkpointer.usage()] == runs
    assert checkpointer.prune(run_id, keep_last=2, grace=timedelta(0)).steps == tuple(range(10))
    assert checkpointer.pruned_up_to(run_id) == 9
    assert checkpointer.prune_all(keep_last=1, on_run=seen.append).runs == 2
    assert [pruned.run_id for pruned in seen] == runs
    checkpointer.delete(run_id)
    assert list(checkpointer.runs()) == [forked]


def test_leaving_an_iteration_early_ends_it(checkpointer: SyncS3Checkpointer[Count]) -> None:
    run_id = uuid4()
    for step in range(12):
        checkpointer.save(run_id, step, Count(n=step))

    history = checkpointer.history(run_id)
    assert next(history).step == 11
    history.close()  # type: ignore[attr-defined]

    async def tasks(_: S3Checkpointer[Count]) -> int:
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert checkpointer.run(tasks) == 1  # this one


def test_closing_ends_an_iteration_that_was_left_open(settings: S3Settings, caplog: pytest.LogCaptureFixture) -> None:
    checkpointer = SyncS3Checkpointer(Count, settings)
    for step in range(12):
        checkpointer.save(uuid4(), step, Count(n=step))
    left_open = checkpointer.activity()
    next(left_open)

    checkpointer.close()

    with pytest.raises(LifecycleError):
        next(left_open)
    assert caplog.records == []


def test_errors_come_through_as_they_are(checkpointer: SyncS3Checkpointer[Count]) -> None:
    run_id = uuid4()
    checkpointer.commit(run_id, 0, Count(), [])

    with pytest.raises(StepConflictError):
        checkpointer.commit(run_id, 0, Count(n=1), [])
    with pytest.raises(StateEncodingError, match=r"\$\.n"):
        checkpointer.save(run_id, 1, Count(n=float("nan")))
    with pytest.raises(InvalidArgumentError):
        checkpointer.load(run_id, -1)


def test_a_namespace_shares_the_client_and_has_steps_of_its_own(checkpointer: SyncS3Checkpointer[Count]) -> None:
    run_id, inner = uuid4(), checkpointer.with_namespace("inner")

    inner.save(run_id, 4, Count())

    assert (checkpointer.namespace, inner.namespace) == ("", "inner")
    assert (checkpointer.list(run_id), inner.list(run_id)) == ([], [4])
    assert [entry.step for entry in inner.history(run_id)] == [4]
    with pytest.raises(InvalidArgumentError):
        checkpointer.with_namespace("\ud800")


def test_nothing_is_opened_before_the_first_call_and_one_client_serves_all_threads(settings: S3Settings) -> None:
    def threads() -> int:
        return sum(thread.name == "s3-checkpoint" for thread in threading.enumerate())

    before = threads()
    checkpointer = SyncS3Checkpointer(Count, settings)
    assert threads() == before

    async def client(async_one: S3Checkpointer[Count]) -> int:
        return id(async_one.objects.store)

    with ThreadPoolExecutor(8) as pool:
        stores = set(pool.map(lambda _: checkpointer.run(client), range(40)))

    assert len(stores) == 1
    assert threads() == before + 1
    checkpointer.close()
    assert threads() == before


def test_calls_after_close_say_so_and_closing_again_is_nothing(settings: S3Settings) -> None:
    unused, used = SyncS3Checkpointer(Count, settings), SyncS3Checkpointer(Count, settings)
    used.list(uuid4())
    inner = used.with_namespace("inner")

    for checkpointer in (unused, used, used):
        checkpointer.close()

    for checkpointer in (unused, used, inner):
        with pytest.raises(LifecycleError, match="closed already"):
            checkpointer.list(uuid4())


def test_an_opening_that_failed_is_tried_anew(settings: S3Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Lambda whose first call came too early is not spoiled for all later ones."""
    monkeypatch.setenv("AWS_PROFILE", "not-there")
    with SyncS3Checkpointer(Count, settings.model_copy(update={"access_key_id": None, "secret_access_key": None})) as c:
        with pytest.raises(Exception, match="not-there"):
            c.list(uuid4())

        monkeypatch.delenv("AWS_PROFILE")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")

        assert c.list(uuid4()) == []


async def test_sync_checkpointer_works_where_a_loop_runs_already(checkpointer: SyncS3Checkpointer[Count]) -> None:
    """As in a notebook, whose cells run inside one."""
    assert checkpointer.list(uuid4()) == []


def test_a_call_from_its_own_loop_is_refused_instead_of_hanging(checkpointer: SyncS3Checkpointer[Count]) -> None:
    async def calls_back(_: S3Checkpointer[Count]) -> list[int]:
        return checkpointer.list(uuid4())

    with pytest.raises(LifecycleError, match="would never return"):
        checkpointer.run(calls_back)
    assert checkpointer.list(uuid4()) == []


def test_a_superstep_can_be_run_without_a_loop(checkpointer: SyncS3Checkpointer[Count]) -> None:
    async def add(state: Count, task: Task) -> Next:
        return Next(1, "add" if state.n < 3 else END)

    def apply(state: Count, update: int) -> Count:
        return Count(n=state.n + update)

    graph = Graph(start="add", nodes={"add": add}, apply=apply)
    end = checkpointer.run(lambda opened: run_to_end(opened, graph, uuid4(), initial=Count()))

    assert (end.finished, end.state.n) == (True, 4)


def in_child(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of every fork with threads
def test_a_forked_child_opens_a_client_of_its_own_and_leaves_the_parents_alone(
    checkpointer: SyncS3Checkpointer[Count],
) -> None:
    run_id = uuid4()
    checkpointer.save(run_id, 0, Count(n=1))

    def use_and_close() -> bool:
        checkpointer.save(run_id, 1, Count(n=2))
        found = checkpointer.list(run_id) == [0, 1]
        checkpointer.close()
        return found

    def only_close() -> bool:
        checkpointer.close()
        return True

    assert [in_child(use_and_close), in_child(only_close)] == [0, 0]
    checkpointer.save(run_id, 2, Count(n=3))
    assert checkpointer.list(run_id) == [0, 1, 2]


GLOBAL = """
from uuid import UUID
from s3_checkpoint import SyncS3Checkpointer
checkpointer = SyncS3Checkpointer(dict[str, int])
checkpointer.save(UUID(int=1), 0, {"n": 1})
print(checkpointer.load(UUID(int=1)))
"""


def test_a_module_global_is_closed_by_the_end_of_the_process_without_a_word(settings: S3Settings) -> None:
    environment = {
        **os.environ,
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", GLOBAL],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{'n': 1}\n", "")


def test_each_call_makes_the_requests_of_its_async_twin(settings: S3Settings) -> None:
    run_id, sent = uuid4(), Counter[str]()
    with SyncS3Checkpointer(Count, settings, on_request=lambda request: sent.update([request.operation])) as watched:
        watched.commit(run_id, 0, Count(), [])
        watched.resume(run_id)

    assert sent == {"PutObject": 2, "ListObjectsV2": 2, "GetObject": 1}
