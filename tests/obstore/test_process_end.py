"""A process may end at any moment: no thread of another language is in Python when the interpreter goes."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benchmarks.stub_process import StubProcess, running_stub
from tests.obstore.ending_worker import WAYS

ROOT = Path(__file__).parents[2]
_BUSY = "import time\nend = time.monotonic() + 300\nwhile time.monotonic() < end: pass"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProcess]:
    with running_stub() as running:
        yield running


@contextmanager
def _busy_machine(processes: int) -> Iterator[None]:
    """Other processes want the same cores, for five minutes at most: what takes turns is interrupted anywhere."""
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _end(way: str, url: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.obstore.ending_worker", way, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr[-2000:]


def _endings(url: str, starts: int) -> list[tuple[str, int, str]]:
    """Starts that many processes, two at a time, the ways to end in turn; those that did not end as they should."""
    ways = [list(WAYS)[n % len(WAYS)] for n in range(starts)]
    with ThreadPoolExecutor(2) as pool:
        ended = pool.map(lambda way: (way, *_end(way, url)), ways)
        return [(way, code, told) for way, code, told in ended if code != WAYS[way] or "done" not in told]


def test_a_process_ends_as_it_should_in_every_way(stub: StubProcess) -> None:
    """Closed or not, from the sync facade, at exit, by an exception, by Ctrl-C, with requests in flight.

    Two at a time, and a third process that wants a core; the many turns are those of the test below.
    """
    with _busy_machine(1):
        assert _endings(stub.url, len(WAYS)) == []


@pytest.mark.long
def test_two_hundred_processes_end_as_they_should_on_a_busy_machine(stub: StubProcess) -> None:
    """Story: with obstore's async calls, 14 of 100 processes ended with SIGABRT after their last commit."""
    with _busy_machine(6):
        assert _endings(stub.url, 200) == []


def test_an_end_waits_for_a_request_no_longer_than_its_time_outs() -> None:
    """A server that takes requests and never answers: the process ends when the read time-out has passed."""
    program = """
import asyncio, sys, uuid
from s3_checkpoint import S3Settings, connect
settings = S3Settings(bucket='bucket', endpoint_url=sys.argv[1], region_name='us-east-1', access_key_id='a',
                      secret_access_key='b', transport='obstore', read_timeout_s=1, max_attempts=1)
async def main():
    async with connect(dict, settings) as checkpointer:
        save = asyncio.ensure_future(checkpointer.save(uuid.uuid4(), 0, {}))
        await asyncio.to_thread(sys.stdin.readline)
        print('leaving', flush=True)
        raise SystemExit(5)
asyncio.run(main())"""

    async def run() -> tuple[int | None, bytes]:
        connected = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.set()
            with contextlib.suppress(ConnectionError):
                await reader.read()  # until the client goes
                writer.close()
                await writer.wait_closed()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, url, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        async with asyncio.timeout(180):
            await connected.wait()
            told, _ = await process.communicate(b"\n")
        server.close()
        return process.returncode, told

    code, told = asyncio.run(run())

    assert (code, told) == (5, b"leaving\n")
