"""What `s3_checkpoint.testing` gives to applications does what it says; the rest of the suite uses it all day."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from s3_checkpoint import (
    AccessDeniedError,
    MemoryStore,
    S3Checkpointer,
    StateDecodingError,
    StoreUnavailableError,
    connect,
)
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing import (
    EVERY,
    Aim,
    CorruptBody,
    Counting,
    Crash,
    CrashAfter,
    CrashBefore,
    Denied,
    LocalS3,
    Outage,
    Slow,
    SlowDown503,
    Unanswered,
    local_s3,
    state_put,
)
from tests.states import RUN, Counter

ROOT = Path(__file__).parent.parent


def over(store: ObjectStore) -> S3Checkpointer[Counter]:
    return S3Checkpointer(Counter, store)


async def test_during_an_outage_no_request_arrives() -> None:
    """A read says that nothing was written, a write that the outcome is unknown; afterwards all is as before."""
    within = Counting(MemoryStore())
    store = Outage(within, down=True)

    with pytest.raises(StoreUnavailableError) as reading:
        await over(store).load(RUN, 0)
    with pytest.raises(StoreUnavailableError) as writing:
        await over(store).save(RUN, 0, Counter(n=1))
    store.down = False
    await over(store).save(RUN, 0, Counter(n=1))

    assert (reading.value.outcome_unknown, writing.value.outcome_unknown) == (False, True)
    assert within.taken() == {"PUT": 1}


async def test_a_slow_store_is_as_slow_as_the_test_says() -> None:
    """By an event, so that no test waits for seconds."""
    proceed = asyncio.Event()
    saving = asyncio.create_task(over(Slow(MemoryStore(), proceed.wait)).save(RUN, 0, Counter(n=1)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not saving.done()

    proceed.set()

    await saving


@pytest.mark.parametrize(("fault", "landed"), [(CrashBefore, False), (CrashAfter, True)])
async def test_a_crash_is_before_or_after_the_kth_request(
    fault: type[CrashBefore] | type[CrashAfter], landed: bool
) -> None:
    """No handler of an application's own holds it up: it is no `Exception`."""
    within = MemoryStore()
    store = fault(within, state_put(first=2))
    await over(store).save(RUN, 0, Counter(n=0))

    with pytest.raises(Crash):
        await over(store).save(RUN, 1, Counter(n=1))

    assert not issubclass(Crash, Exception)
    assert await over(within).list(RUN) == ([0, 1] if landed else [0])


async def test_an_aim_meets_by_verb_key_and_number() -> None:
    """Others pass."""
    store = SlowDown503(MemoryStore(), Aim("GetObject", "/steps/", first=2, times=2))
    checkpointer = over(store)
    await checkpointer.save(RUN, 0, Counter(n=0))

    answers = await asyncio.gather(*(checkpointer.load(RUN, 0) for _ in range(4)), return_exceptions=True)

    assert [isinstance(answer, StoreUnavailableError) for answer in answers] == [False, True, True, False]


async def test_denied_requests_name_the_action_and_damaged_objects_their_key() -> None:
    """As on S3."""
    within = MemoryStore()
    await over(within).save(RUN, 0, Counter(n=0))

    with pytest.raises(AccessDeniedError) as denied:
        await over(Denied(within, Aim("ListObjectsV2", times=EVERY))).list(RUN)
    with pytest.raises(StateDecodingError):
        await over(CorruptBody(within, lambda body: body[:-1])).load(RUN, 0)

    assert denied.value.action == "s3:ListBucket"


def test_a_saver_of_langgraph_takes_the_same_faults() -> None:
    """They are stores like others."""
    with S3Saver(Outage(MemoryStore(), down=True)) as saver, pytest.raises(StoreUnavailableError):
        saver.get_tuple({"configurable": {"thread_id": "a"}})


async def test_a_write_that_landed_unseen_is_found_by_the_same_call() -> None:
    """`commit` asks what became of it."""
    store = Unanswered(MemoryStore(), state_put(), landed=True)

    with pytest.raises(StoreUnavailableError):
        await over(store).commit(RUN, 0, Counter(n=1), [])
    await over(store).commit(RUN, 0, Counter(n=1), [])

    assert await over(store).list(RUN) == [0]


async def test_buckets_of_a_local_s3_are_apart_and_gone_with_it() -> None:
    """Of two in one process, each drops its own."""
    with local_s3() as one:
        settings, other = one.new_bucket(prefix="team"), one.new_bucket()
        async with connect(Counter, settings) as checkpointer, connect(Counter, other) as empty:
            await checkpointer.save(RUN, 0, Counter(n=1))
            assert await empty.list(RUN) == []
        with local_s3() as two:
            pass
        async with connect(Counter, settings) as checkpointer:
            assert await checkpointer.load(RUN) == Counter(n=1)
        assert two.endpoint_url != one.endpoint_url


def test_settings_go_to_another_process_by_its_environment(local: LocalS3) -> None:
    """All of them: also those that are no text."""
    settings = local.new_bucket(object_tags={"team": "a"}, max_attempts=2, conditional_writes=False)
    program = "from s3_checkpoint import S3Settings; print(repr(sorted(map(repr, S3Settings()))))"

    there = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | settings.environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert there.stdout.strip() == repr(sorted(map(repr, settings)))
    assert json.loads(settings.environment()["S3_CHECKPOINT_OBJECT_TAGS"]) == {"team": "a"}


def test_the_storage_tests_leave_a_bucket_in_use_as_it_was(local: LocalS3) -> None:
    """With the credentials of the machine, and keys in the bucket that tests use too."""
    settings = local.new_bucket()
    machine = {"AWS_ACCESS_KEY_ID": "of-the-machine", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
    client = boto3.client(
        "s3", endpoint_url=local.endpoint_url, aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1"
    )
    for key in ("a", "p/0", "p/1", "race", f"runs/{RUN}/steps/{0:020}.json", "s3-checkpoint-tests/other"):
        client.put_object(Bucket=settings.bucket, Key=key, Body=b"in use")

    def seen() -> dict[str, tuple[str, object]]:
        listed = client.list_objects_v2(Bucket=settings.bucket)["Contents"]
        return {entry["Key"]: (entry["ETag"], entry["LastModified"]) for entry in listed}

    before = seen()
    tests = ["tests/test_object_store_contract.py", "tests/test_checkpointer_contract.py"]
    some = "was_put_is_got or delete_removes or creates_at_once or concurrent_commits"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "bucket", "-k", some, *tests],
        env=os.environ
        | machine
        | {"S3_CHECKPOINT_TEST_BUCKET": settings.bucket, "S3_CHECKPOINT_TEST_ENDPOINT": local.endpoint_url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout
    assert "8 passed" in ended.stdout
    assert seen() == before
    client.close()
