"""A worker that is killed in the middle of a run, and another one that continues."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from s3_checkpoint import S3Settings
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import at
from tests.langgraph.killed_worker import TASKS

ROOT = Path(__file__).parents[2]
STOP_AT = 2


def worker(settings: S3Settings, log: Path, stop_at: int | None) -> subprocess.Popen[str]:
    arguments = [settings.bucket, str(settings.endpoint_url), str(log), str(stop_at)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.langgraph.killed_worker", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished_tasks(saver: S3Saver) -> int:
    found = saver.get_tuple(at("killed"))
    return len(found.pending_writes or []) if found else 0


def test_completed_tasks_do_not_run_again_after_a_kill(shared_settings: S3Settings, tmp_path: Path) -> None:
    """Five tasks of a superstep are done when the process dies in the sixth: the next one runs that and continues."""
    log = tmp_path / "begun"
    with S3Saver(shared_settings, prefix="killed") as saver:
        killed = worker(shared_settings, log, STOP_AT)
        assert killed.stdout is not None
        assert killed.stdout.readline() == "stopped\n"
        deadline = threading.Event()
        timer = threading.Timer(60, deadline.set)
        timer.start()
        while finished_tasks(saver) < TASKS - 1:
            assert not deadline.wait(0.02), "the tasks that are done were not stored within a minute"
        timer.cancel()
        killed.send_signal(signal.SIGKILL)
        killed.communicate()

        resumed = worker(shared_settings, log, None)
        output, errors = resumed.communicate(timeout=180)

        assert (killed.returncode, resumed.returncode, errors) == (-signal.SIGKILL, 0, "")
        assert int(output) == sum(n**2 for n in range(TASKS))
        assert Counter(log.read_text().split()) == {str(n): 1 + (n == STOP_AT) for n in range(TASKS)}
