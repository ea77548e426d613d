"""The demonstration, as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from s3_checkpoint import Graph, RunAdmin, S3Checkpointer, S3Settings, connect, run_to_end
from s3_checkpoint.demo.graph import CENSUS, Census, count_identifiers, standard_library, summarize
from s3_checkpoint.demo.plan import Plan
from s3_checkpoint.memory_store import MemoryStore

COMMAND = [sys.executable, "-m", "s3_checkpoint.cli", "demo"]


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits to be collected does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def few_files(folder: Path) -> list[str]:
    """Three, of two lines."""
    files = [folder / f"{name}.py" for name in ("one", "two", "three")]
    for file in files:
        file.write_text(f"{file.stem} = shared + shared  # words here do not count\n'nor here'\n")
    return [str(file) for file in files]


def test_a_run_whose_workers_are_killed_gives_the_result_of_a_direct_count(tmp_path: Path) -> None:
    """The numbers as a program gets them; kills are in the middle of a superstep, whatever the machine's speed."""
    ended = subprocess.run(
        [*COMMAND, "--seed", "7", "--output", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )

    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    assert told["equal"]
    assert told["report"] == json.loads(
        summarize(len(standard_library()), count_identifiers(standard_library())).model_dump_json()
    )
    assert len(told["kills"]) >= 3
    fan_outs = [kill for kill in told["kills"] if kill["node"] == "count"]
    assert fan_outs
    assert all(0 < kill["done"] < kill["tasks"] for kill in fan_outs)
    assert told["supersteps"] == 8
    assert [step["step"] for step in told["steps"]] == [*range(9)]
    assert told["steps"][1]["active"] == ["count"] * 8
    assert told["steps"][8]["active"] == ["__end__"]
    assert told["duplicates"] == 3
    assert told["superseded"] >= 3
    assert told["redeliveries"] >= 1
    assert told["requests_per_superstep"] == [4, 5, 4, 5, 4, 5, 4, 4]  # tasks with files do not fit the metadata
    states = [key["key"] for key in told["keys"] if "/steps/" in key["key"]]
    assert states == [f"runs/{told['run_id']}/steps/{step:020}.json" for step in range(9)]
    assert ended.stderr.count("killed with SIGKILL in superstep") == len(told["kills"])
    assert ended.stderr.count("resumes from step") >= 3
    assert ended.stderr.count("its message was delivered twice") == 2


async def test_a_configured_bucket_keeps_the_run_under_its_prefix(
    new_settings: Callable[..., S3Settings], tmp_path: Path
) -> None:
    """Files given, few of them; the queue is local, and the credentials of the bucket stay the bucket's."""
    settings = new_settings(prefix="demo")
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_PREFIX": "demo",
        "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        "S3_CHECKPOINT_ACCESS_KEY_ID": "testing",
        "S3_CHECKPOINT_SECRET_ACCESS_KEY": "testing",
    }

    ended = await asyncio.to_thread(
        subprocess.run,
        [*COMMAND, "--kills", "1", "--seed", "1", "--workers", "2", *few_files(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )

    assert ended.returncode == 0, ended.stderr
    assert "The result is right: 9 occurrences of 4 identifiers in 3 files (shared 6," in ended.stdout
    assert "The run stays in the bucket" in ended.stdout
    async with connect(Census, settings) as checkpointer:
        runs = [run_id async for run_id in RunAdmin(checkpointer).runs()]
        final = await checkpointer.resume(runs[0])
    assert len(runs) == 1
    assert f"demo/runs/{runs[0]}/steps/{0:020}.json" in ended.stdout
    assert final is not None
    assert final.state.counts == {"shared": 6, "one": 1, "two": 1, "three": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(end: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C ends it without a traceback; and even if nobody can clean up, every process ends by itself."""
    running = subprocess.Popen(
        [*COMMAND, "--seed", "7", *few_files(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    seen = next(line for line in running.stderr if "killed with SIGKILL" in line)
    children = children_of(running.pid)

    running.send_signal(end)
    out, rest = running.communicate(timeout=180)

    assert seen
    assert len(children) >= 3  # the server, and workers
    if end == signal.SIGINT:
        assert running.returncode == 130
        assert "Traceback" not in rest
        assert rest.rstrip().endswith("s3-checkpoint: interrupted")
        assert out == ""
        assert [child for child in children if alive(child)] == []
    for child in children:
        descriptor = os.pidfd_open(child) if alive(child) else None
        if descriptor is not None:
            assert _ends(descriptor), f"process {child} is still there"


def _ends(descriptor: int) -> bool:
    """Waits until the process has ended; False if it has not after 20 s."""
    import select

    ready, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    return bool(ready)


def test_a_file_that_is_not_there_is_wrong_usage() -> None:
    ended = subprocess.run([*COMMAND, "no-such-file.py"], capture_output=True, text=True, timeout=180, check=False)

    assert ended.returncode == 2
    assert "no-such-file.py" in ended.stderr


def test_a_bucket_that_is_not_there_is_told_at_once(settings: S3Settings) -> None:
    environment = {
        **os.environ,
        "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        "S3_CHECKPOINT_ACCESS_KEY_ID": "testing",
        "S3_CHECKPOINT_SECRET_ACCESS_KEY": "testing",
    }

    ended = subprocess.run(
        [*COMMAND, "--bucket", "not-there"], capture_output=True, text=True, timeout=180, check=False, env=environment
    )

    assert ended.returncode == 5
    assert "bucket=`not-there`" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("files", [1, 3, 8, 9, 24, 500])
@pytest.mark.parametrize("seed", range(5))
def test_every_plan_kills_in_a_fan_out_first_and_hits_each_superstep_once(files: int, seed: int) -> None:
    plan = Plan.draw(files, 3, seed)

    largest = max(plan.tasks.values())
    assert len(plan.kills) == 3
    assert any(plan.tasks.get(step) == largest for step in plan.kills)
    assert all(1 <= after <= max(1, plan.tasks.get(step, 1) - 1) for step, after in plan.kills.items())
    assert not set(plan.kills) & plan.twice
    assert all(1 <= step <= plan.last for step in {*plan.kills, *plan.twice})


@pytest.mark.parametrize("count", [1, 7, 30])
async def test_the_graph_counts_what_a_direct_count_finds(count: int, tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.py" for index in range(count)]
    for index, path in enumerate(files):
        path.write_text(f"def f{index}(self):\n    return self + {'x ' * index}\n")
    paths = [str(path) for path in files]
    graph: Graph[Census] = CENSUS

    end = await run_to_end(S3Checkpointer(Census, MemoryStore()), graph, UUID(int=1), initial=Census(files=paths))

    assert end.finished
    assert end.state.counts == dict(count_identifiers(paths))
    assert end.state.report == summarize(count, count_identifiers(paths))
    assert end.step == Plan.draw(count, 0, 0).last
    assert Counter(end.state.counts)["self"] == 2 * count
