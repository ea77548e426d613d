"""Cost is part of the interface: every public method makes the requests its docstring says, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from uuid import uuid4

import pytest

from s3_checkpoint import (
    ActiveSnapshot,
    CheckpointError,
    InvalidArgumentError,
    S3Checkpointer,
    S3Settings,
    StateEncodingError,
    StepConflictError,
    connect,
)
from tests.s3.sdk_requests import RequestLog, logged_client
from tests.states import RUN, Counter

TASKS = [ActiveSnapshot(node_name="a")]
NOT_JSON = ActiveSnapshot(node_name="a", payload=float("inf"))


@pytest.fixture
async def log(settings: S3Settings) -> AsyncIterator[RequestLog]:
    async with logged_client(settings) as log:
        yield log


@pytest.fixture
async def checkpointer(settings: S3Settings, log: RequestLog) -> AsyncIterator[S3Checkpointer[Counter]]:
    async with connect(Counter, settings, client=log.client) as checkpointer:
        yield checkpointer


async def test_opening_and_closing_make_no_request(settings: S3Settings, log: RequestLog) -> None:
    """A cold start pays for the first call only."""
    async with connect(Counter, settings, client=log.client) as checkpointer:
        checkpointer.with_namespace("sub")

    assert log.counts() == {}


LARGE_TASKS = [ActiveSnapshot(node_name="a", payload="x" * 2048)]
"""Too large for metadata."""


async def test_writes_cost_what_they_say(checkpointer: S3Checkpointer[Counter], log: RequestLog) -> None:
    """`save` and `save_active` 1 PUT, `commit` 2; 1 LIST before the first commit of a run not looked at yet."""
    await checkpointer.save(RUN, 0, Counter(n=0))
    assert log.counts() == {"PutObject": 1}

    await checkpointer.save_active(RUN, 0, TASKS)
    assert log.counts() == {"PutObject": 1}

    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)
    assert log.counts() == {"ListObjectsV2": 1, "PutObject": 2}

    await checkpointer.commit(RUN, 2, Counter(n=2), TASKS)
    assert log.counts() == {"PutObject": 2}

    await checkpointer.commit(RUN, 3, Counter(n=3), LARGE_TASKS)
    assert log.counts() == {"PutObject": 2}


async def test_a_commit_after_resume_costs_no_list(checkpointer: S3Checkpointer[Counter], log: RequestLog) -> None:
    """Resuming has looked at the end of the run."""
    await checkpointer.commit(RUN, 0, Counter(n=0), TASKS)
    await checkpointer.resume(RUN)
    log.counts()

    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)

    assert log.counts() == {"PutObject": 2}


async def test_a_commit_without_the_copy_is_one_put(settings: S3Settings, log: RequestLog) -> None:
    """The tasks are in the state's metadata; those that do not fit still go first."""
    settings = settings.model_copy(update={"snapshot_objects": "when_large"})
    async with connect(Counter, settings, client=log.client) as checkpointer:
        await checkpointer.resume(RUN)
        log.counts()

        await checkpointer.commit(RUN, 0, Counter(n=0), TASKS)
        assert log.counts() == {"PutObject": 1}

        await checkpointer.commit(RUN, 1, Counter(n=1), LARGE_TASKS)
        assert log.counts() == {"PutObject": 2}

        assert await checkpointer.load_active(RUN, 0) == TASKS
        assert await checkpointer.load_active(RUN, 1) == LARGE_TASKS


@pytest.mark.parametrize("n", [1, 2])
async def test_a_refused_commit_costs_one_get_more(
    checkpointer: S3Checkpointer[Counter], settings: S3Settings, log: RequestLog, n: int
) -> None:
    """Whether it turns out to be a repeat or a conflict: the winner is read, since an equal state is no conflict."""
    await checkpointer.resume(RUN)
    async with connect(Counter, settings) as rival:
        await rival.commit(RUN, 1, Counter(n=1), TASKS)
    log.counts()

    with nullcontext() if n == 1 else pytest.raises(StepConflictError):
        await checkpointer.commit(RUN, 1, Counter(n=n), TASKS)

    assert log.counts() == {"PutObject": 2, "GetObject": 1}


async def test_a_commit_to_a_step_known_to_be_there_sends_nothing(
    checkpointer: S3Checkpointer[Counter], log: RequestLog
) -> None:
    """A late duplicate: 1 LIST shows the step, 1 GET what it holds."""
    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)
    log.counts()

    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)

    assert log.counts() == {"ListObjectsV2": 1, "GetObject": 1}


async def test_a_commit_before_later_steps_looks_for_the_floor(
    checkpointer: S3Checkpointer[Counter], log: RequestLog
) -> None:
    """1 LIST more: the step may have been pruned."""
    await checkpointer.commit(RUN, 5, Counter(n=5), TASKS)
    log.counts()

    await checkpointer.commit(RUN, 3, Counter(n=3), TASKS)

    assert log.counts() == {"ListObjectsV2": 2, "PutObject": 2}


async def test_reads_cost_what_they_say(checkpointer: S3Checkpointer[Counter], log: RequestLog) -> None:
    """For a saved step and for a committed one."""
    await checkpointer.save(RUN, 0, Counter(n=0))
    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)
    log.counts()

    await checkpointer.load(RUN, 0)
    assert log.counts() == {"GetObject": 1}
    await checkpointer.load(RUN)
    assert log.counts() == {"ListObjectsV2": 1, "GetObject": 1}
    await checkpointer.load_active(RUN, 0)
    assert log.counts() == {"GetObject": 1, "HeadObject": 1}
    await checkpointer.load_active(RUN, 1)
    assert log.counts() == {"GetObject": 1, "HeadObject": 1}
    await checkpointer.resume(RUN)
    assert log.counts() == {"ListObjectsV2": 1, "GetObject": 1}
    await checkpointer.list(RUN)
    assert log.counts() == {"ListObjectsV2": 1}


async def test_tasks_that_are_not_inline_cost_one_get_more(
    checkpointer: S3Checkpointer[Counter], log: RequestLog
) -> None:
    """They are in an object of their own."""
    await checkpointer.commit(RUN, 1, Counter(n=1), LARGE_TASKS)
    log.counts()

    await checkpointer.load_active(RUN, 1)
    assert log.counts() == {"GetObject": 2, "HeadObject": 1}
    await checkpointer.resume(RUN)
    assert log.counts() == {"ListObjectsV2": 1, "GetObject": 2}


async def test_an_unknown_run_costs_one_list(checkpointer: S3Checkpointer[Counter], log: RequestLog) -> None:
    """And gives None, None and []."""
    unknown = uuid4()

    assert await checkpointer.load(unknown) is None
    assert await checkpointer.resume(unknown) is None
    assert await checkpointer.list(unknown) == []
    assert log.counts() == {"ListObjectsV2": 3}


async def test_refused_arguments_cost_no_request(checkpointer: S3Checkpointer[Counter], log: RequestLog) -> None:
    """A state that would not come back, a step out of bounds, a run id that is none."""
    calls: list[tuple[type[CheckpointError], Callable[[], Awaitable[object]]]] = [
        (StateEncodingError, lambda: checkpointer.save(RUN, 0, Counter.model_construct(n=float("nan")))),
        (StateEncodingError, lambda: checkpointer.commit(RUN, 0, Counter(n=0), [NOT_JSON])),
        (StateEncodingError, lambda: checkpointer.save_active(RUN, 0, [NOT_JSON])),
        (InvalidArgumentError, lambda: checkpointer.save(RUN, -1, Counter(n=0))),
        (InvalidArgumentError, lambda: checkpointer.load(RUN, 2**64)),
        (InvalidArgumentError, lambda: checkpointer.load_active(RUN, True)),
        (InvalidArgumentError, lambda: checkpointer.resume("not a run")),
        (InvalidArgumentError, lambda: checkpointer.list("not a run")),
    ]
    for expected, call in calls:
        with pytest.raises(expected):
            await call()

    assert log.counts() == {}
