"""Opening, closing, and being called from every thread and every loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver

from s3_checkpoint import ConfigurationError, InvalidArgumentError, LifecycleError, MemoryStore, S3Settings
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.claude import S3SessionStore
from s3_checkpoint.langgraph import S3Saver, S3Store, ThreadAdmin
from tests.langgraph.counting import Counting, at, chain, put


@pytest.fixture
def connection(shared_settings: S3Settings) -> dict[str, Any]:
    """Keywords of `from_conn_string` that lead to the moto server."""
    settings = shared_settings
    assert settings.endpoint_url
    return {"endpoint_url": settings.endpoint_url, "access_key_id": "testing", "secret_access_key": "testing"}


def test_from_conn_string_is_a_context_manager(shared_settings: S3Settings, connection: dict[str, Any]) -> None:
    with S3Saver.from_conn_string(f"s3://{shared_settings.bucket}/sync/prefix", **connection) as saver:
        saver.setup()
        stored = put(saver, at("t"))

        assert saver.get_tuple(at("t")) is not None
    with S3Saver(shared_settings, prefix="sync/prefix") as saver:
        assert saver.get_tuple(stored) is not None


async def test_from_conn_string_is_an_async_context_manager(
    shared_settings: S3Settings, connection: dict[str, Any]
) -> None:
    async with S3Saver.from_conn_string(f"s3://{shared_settings.bucket}/async/prefix", **connection) as saver:
        await saver.asetup()
        stored = put(saver, at("t"))

        assert (await saver.aget_tuple(stored)) is not None
    async with S3Saver(shared_settings.model_copy(update={"prefix": "async/prefix"})) as saver:
        assert await saver.aget_tuple(stored) is not None


def test_setup_alone_opens_it(shared_settings: S3Settings) -> None:
    saver = S3Saver(shared_settings, prefix="setup")
    saver.setup()
    saver.setup()

    assert saver.get_tuple(at("t")) is None
    saver.close()


def test_the_first_call_opens_it(shared_settings: S3Settings) -> None:
    """Story: the one line that changes in an application, as README shows it, ended with "not open yet"."""
    saver = S3Saver(shared_settings, prefix="first call")

    stored = put(saver, at("t"))

    assert saver.get_tuple(stored) is not None
    saver.close()


async def test_the_first_call_opens_it_for_all_tasks(shared_settings: S3Settings) -> None:
    """Once, whatever calls come first, sync ones in threads too."""
    saver = S3Saver(shared_settings, prefix="first calls")
    threads = {thread for thread in threading.enumerate() if thread.name == "s3-checkpoint-langgraph"}

    found = await asyncio.gather(
        *(saver.aget_tuple(at("t")) for _ in range(8)), *(asyncio.to_thread(saver.get_tuple, at("t")) for _ in range(4))
    )

    assert found == [None] * 12
    now = {thread for thread in threading.enumerate() if thread.name == "s3-checkpoint-langgraph"}
    assert len(now - threads) == 1
    await saver.aclose()


@pytest.mark.parametrize(
    "source",
    [3, b"bucket", {"bucket": "b"}, MemoryStore, S3Settings, SimpleQueue()],
    ids=lambda given: getattr(given, "__name__", type(given).__name__),
)
@pytest.mark.parametrize("kind", [S3Saver, S3Store, S3SessionStore])
def test_something_else_in_the_place_of_a_bucket_is_told_what_would_do(kind: Any, source: Any) -> None:
    """Story: 'int' object has no attribute 'bucket'. A queue has `get` and `put`, and is no store."""
    with pytest.raises(InvalidArgumentError, match=r"such as MemoryStore\(\), S3Settings, a bucket's name or an s3://"):
        kind(source)


@pytest.mark.parametrize("kind", [S3Saver, S3Store, S3SessionStore])
def test_no_bucket_is_told_with_the_variable_that_names_one(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, nothing need be given."""
    with pytest.raises(ConfigurationError, match="S3_CHECKPOINT_BUCKET"):
        kind()
    monkeypatch.setenv("S3_CHECKPOINT_BUCKET", "my-bucket")

    kind()


@pytest.mark.parametrize("kind", [S3Saver, S3Store])
def test_a_url_that_is_none_is_told_as_one(kind: Any) -> None:
    """As of a variable that is not set."""
    with pytest.raises(ConfigurationError, match=r"must read s3://bucket.*NoneType"):
        kind.from_conn_string(os.environ.get("CHECKPOINTS"))


def test_an_admin_of_something_else_is_told_what_it_needs() -> None:
    with pytest.raises(InvalidArgumentError, match="must be an S3Saver"):
        ThreadAdmin(MemoryStore())  # type: ignore[arg-type]


async def test_calls_after_closing_say_so(shared_settings: S3Settings) -> None:
    saver = S3Saver(shared_settings)
    async with saver:
        assert await saver.aget_tuple(at("t")) is None
    await saver.aclose()

    with pytest.raises(LifecycleError, match="closed"):
        await saver.aget_tuple(at("t"))
    with pytest.raises(LifecycleError, match="closed"):
        saver.setup()


def test_setup_finds_out_that_the_bucket_is_not_there(shared_settings: S3Settings) -> None:
    with (
        S3Saver(shared_settings.model_copy(update={"bucket": "no-such-bucket-anywhere"})) as saver,
        pytest.raises(ConfigurationError, match="bucket"),
    ):
        saver.setup()


def test_senseless_arguments_are_refused_when_a_saver_is_made() -> None:
    with pytest.raises(ConfigurationError, match="s3://bucket"):
        S3Saver.from_conn_string("postgres://host/db")
    with pytest.raises(ConfigurationError, match="max_attempts"):
        S3Saver.from_conn_string("s3://bucket", max_attempts=0)
    with pytest.raises(ConfigurationError, match="did you mean region_name"):
        S3Saver.from_conn_string("s3://bucket", regoin_name="eu-west-1")  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="lower-case"):
        S3Saver("s3://My_Bucket/team")
    with pytest.raises(InvalidArgumentError, match="inline_bytes"):
        S3Saver(MemoryStore(), inline_bytes=-1)
    with pytest.raises(InvalidArgumentError, match="prefix"):
        S3Saver(MemoryStore(), prefix="x" * 401)


def test_one_saver_serves_many_threads_and_many_loops_at_once(shared_settings: S3Settings) -> None:
    with S3Saver(shared_settings, prefix="many") as saver:

        def blocking(n: int) -> bool:
            return saver.get_tuple(put(saver, at(f"sync-{n}"))) is not None

        async def awaiting(n: int) -> bool:
            stored = put(saver, at(f"async-{n}"))
            return await saver.aget_tuple(stored) is not None

        with ThreadPoolExecutor(8) as pool:
            answers = [
                *pool.map(blocking, range(12)),
                *pool.map(lambda n: asyncio.run(awaiting(n)), range(12)),
            ]

        assert all(answers)
        assert len(list(saver.list(None))) == 24


async def test_blocking_calls_work_inside_an_async_run(shared_settings: S3Settings) -> None:
    """Blocking the loop is the caller's choice; it must not be a deadlock."""
    async with S3Saver(shared_settings, prefix="blocking") as saver:
        stored = put(saver, at("t"))

        assert saver.get_tuple(stored) is not None
        assert [item async for item in saver.alist(at("t"))] == list(saver.list(at("t")))


async def test_a_store_given_is_used_in_the_loop_it_belongs_to(s3_store: S3ObjectStore) -> None:
    async with S3Saver(s3_store) as saver:
        stored = await saver.aput(at("t"), {"v": 4, "id": "1", "channel_values": {}, "channel_versions": {}}, {}, {})  # type: ignore[typeddict-item]

        assert await saver.aget_tuple(stored) is not None
        assert await asyncio.to_thread(saver.get_tuple, stored) is not None
        assert await asyncio.to_thread(lambda: asyncio.run(saver.aget_tuple(stored))) is not None
        with pytest.raises(LifecycleError, match="would never return"):
            saver.get_tuple(stored)
    assert await s3_store.head("anything") is None, "it is still open: its owner closes it"


async def test_cancelling_a_call_leaves_the_saver_usable(shared_settings: S3Settings) -> None:
    async with S3Saver(shared_settings, prefix="cancel") as saver:
        for configs in [chain(saver, at("t"), 3)]:
            calls = [asyncio.ensure_future(saver.aget_tuple(config)) for config in configs * 5]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

        assert await saver.aget_tuple(at("t")) is not None


def test_a_saver_ends_its_thread_when_it_is_closed() -> None:
    before = threading.active_count()
    with S3Saver(MemoryStore()) as saver:
        put(saver, at("t"))
        assert threading.active_count() == before + 1

    assert threading.active_count() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of every fork with threads
def test_a_forked_worker_opens_a_client_of_its_own(shared_settings: S3Settings) -> None:
    """Preloading servers open before they fork; the child's sockets must not be the parent's."""
    with S3Saver(shared_settings, prefix="fork") as saver:
        stored = put(saver, at("t"))

        child = os.fork()
        if child == 0:
            status = 1
            try:
                found = saver.get_tuple(stored)
                put(saver, stored, {"from": "child"})
                status = 0 if found is not None else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        found = saver.get_tuple(at("t"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"from": "child"}


SCRIPT = """
import sys
from s3_checkpoint.langgraph import S3Saver
saver = S3Saver.from_conn_string(sys.argv[1], endpoint_url=sys.argv[2], access_key_id="x", secret_access_key="x")
saver.setup()
print(saver.get_tuple({"configurable": {"thread_id": "t"}}))
"""


def test_a_saver_left_open_at_exit_says_nothing(shared_settings: S3Settings) -> None:
    """As a module of a Lambda function or of `langgraph.json` leaves it."""
    arguments = [f"s3://{shared_settings.bucket}", str(shared_settings.endpoint_url)]

    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=180, check=False
    )

    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "None", "")


def test_constructing_one_does_not_import_the_sdk() -> None:
    code = (
        "import sys; from s3_checkpoint.langgraph import S3Saver; "
        "S3Saver.from_conn_string('s3://bucket'); print('aiobotocore' in sys.modules)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)

    assert ended.stdout.strip() == "False"


def test_every_method_of_the_interface_is_implemented_in_both_forms() -> None:
    names = {name for name in vars(BaseCheckpointSaver) if not name.startswith("_")}
    inherited = {"get", "aget", "config_specs", "with_allowlist", "serde"}

    assert names - inherited <= set(vars(S3Saver))
    for name in names - inherited - {"get_next_version"}:
        other = name.removeprefix("a") if name.startswith("a") and name[1:] in names else f"a{name}"
        assert other in vars(S3Saver)


async def test_a_call_waits_in_no_loop_but_the_savers_own() -> None:
    """Requests run in the saver's thread, so a busy application loop does not delay them, nor they it."""
    threads: set[str] = set()

    class Where(Counting):
        async def list(self, *args: object, **options: object) -> object:  # type: ignore[override]
            threads.add(threading.current_thread().name)
            return await super().list(*args, **options)  # type: ignore[arg-type]

    async with S3Saver(Where(MemoryStore())) as saver:  # type: ignore[arg-type]
        await saver.aget_tuple(at("t"))
        saver.get_tuple(at("t"))

    assert threads == {"s3-checkpoint-langgraph"}


def test_the_import_says_what_to_install_without_the_extra() -> None:
    code = "import sys; sys.modules['langgraph'] = None; import s3_checkpoint.langgraph"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)

    assert "pip install 's3-checkpoint[langgraph]'" in ended.stderr
