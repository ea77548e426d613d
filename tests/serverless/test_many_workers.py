"""20 runs (50 in the long test), 8 workers, random SIGKILL, duplicates: all come out right, each superstep once."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest

from s3_checkpoint import S3Settings, SyncS3Checkpointer
from s3_checkpoint.superstep_queue import SuperstepMessage
from tests.serverless.conftest import KEYS, Queue
from tests.serverless.fleet import LAST, WIDTH, Sum

WORKERS = 8
VISIBILITY_S = 4

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.fixture
def server() -> Iterator[str]:
    """S3 and SQS in a process of their own; its S3 is atomic."""
    command = [sys.executable, "-m", "s3_checkpoint.demo.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running.stdout.readline().strip()
        assert running.stdin is not None
        running.stdin.close()


class Fleet:
    """The workers, and what they tell."""

    def __init__(self, queue_url: str, settings: S3Settings) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path.cwd()),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "S3_CHECKPOINT_BUCKET": settings.bucket,
            "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.serverless.fleet", queue_url],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._rest = b""
        self.living: list[int] = []

    def start_worker(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"start\n")

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.living.remove(pid)

    def told(self) -> Iterator[dict[str, Any]]:
        """What workers tell, as it comes; it is an error if they say nothing for a minute."""
        assert self._process.stdout is not None
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                told = json.loads(line)
                if "started" in told:
                    self.living.append(told["started"])
                else:
                    yield told
            ready, _, _ = select.select([self._process.stdout], [], [], 60)
            assert ready, "no worker has told anything for a minute"
            self._rest += os.read(self._process.stdout.fileno(), 65536)

    def close(self) -> None:
        self._process.communicate()


@pytest.mark.parametrize("count", [20, pytest.param(50, marks=pytest.mark.long)])
def test_every_run_comes_out_right_and_every_superstep_is_committed_once(server: str, count: int) -> None:
    """Half of the runs come to the same content when a superstep is done twice, half to another one."""
    seed = random.randrange(2**32)
    print("seed", seed)  # shown if it fails
    chance = random.Random(seed)
    s3 = boto3.client("s3", endpoint_url=server, region_name="us-east-1", **KEYS)
    s3.create_bucket(Bucket="fleet")
    s3.put_bucket_versioning(Bucket="fleet", VersioningConfiguration={"Status": "Enabled"})
    sqs = boto3.client("sqs", endpoint_url=server, region_name="us-east-1", **KEYS)
    queue = Queue(sqs, VisibilityTimeout=str(VISIBILITY_S))
    settings = S3Settings(bucket="fleet", endpoint_url=server, access_key_id="testing", secret_access_key="testing")  # type: ignore[arg-type]
    runs = {uuid4(): index for index in range(count)}
    kills = duplicates = 0
    outcomes: Counter[str] = Counter()
    redeliveries = 0
    unfinished = set(runs)

    fleet = Fleet(queue.url, settings)
    try:
        for _ in range(WORKERS):
            fleet.start_worker()
        for run_id, index in runs.items():
            initial = Sum(factor=index, random=index % 2 == 1)
            queue.send(SuperstepMessage.begin(run_id, initial).model_dump_json())
        for told in fleet.told():
            outcomes[told["outcome"]] += 1
            redeliveries += told["deliveries"] > 1
            assert told["error_code"] is None, told
            if told["outcome"] == "committed":
                assert told["request_count"] == (3 if told["step"] == 0 else 4)
            run_id = UUID(told["run_id"])
            if told["step"] == LAST:
                unfinished.discard(run_id)
                if not unfinished:
                    break
            if chance.random() < 4 / count:
                fleet.kill(chance.choice(fleet.living))
                fleet.start_worker()
                kills += 1
            if chance.random() < 6 / count:
                step = chance.randint(0, told["step"])
                queue.send(SuperstepMessage(run_id=run_id, step=step).model_dump_json())
                duplicates += 1
    finally:
        fleet.close()

    print(f"kills {kills}, duplicates {duplicates}, redeliveries {redeliveries}, outcomes {dict(outcomes)}")
    assert kills >= 5
    assert duplicates >= 10
    assert outcomes["superseded"] >= 1
    versions: dict[str, int] = defaultdict(int)
    for page in s3.get_paginator("list_object_versions").paginate(Bucket="fleet"):
        for version in page.get("Versions", ()):
            versions[version["Key"]] += 1
        assert not page.get("DeleteMarkers")
    committed = {key: count for key, count in versions.items() if "/steps/" in key}
    expected = {f"runs/{run_id}/steps/{step:020}.json": 1 for run_id in runs for step in range(LAST + 1)}
    assert committed == expected
    with SyncS3Checkpointer(Sum, settings) as checkpointer:
        for run_id, index in runs.items():
            history = [entry.state for entry in checkpointer.history(run_id)][::-1]
            assert history[-1].total == index * sum(range(1, WIDTH + 1))
            assert [len(state.trail) for state in history] == [0, 1, 1 + WIDTH, 2 + WIDTH]
            for before, after in pairwise(history):
                assert after.trail[: len(before.trail)] == before.trail  # made from the step that was committed
