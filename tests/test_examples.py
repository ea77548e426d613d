"""The applications in `examples/` do what they say, on a store in memory or on the moto server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient

from s3_checkpoint import MemoryStore, S3Settings, connect, run_superstep

EXAMPLES = Path(__file__).parent.parent / "examples"
EXECUTE = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], 4)
kept = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
made = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
assert made == kept, made
"""


@asynccontextmanager
async def service(store: MemoryStore) -> AsyncIterator[AsyncClient]:
    """The web service, started; and stopped."""
    from examples.fastapi_service.app import create_app

    app = create_app(store)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://service") as client,
    ):
        yield client


async def until(client: AsyncClient, run_id: object, node: str) -> dict[str, Any]:
    """What the service tells of the run once `node` is next."""
    async with asyncio.timeout(180):
        while True:
            answer = await client.get(f"/runs/{run_id}")
            if answer.status_code == 200 and answer.json()["next"] == [node]:
                return dict(answer.json())
            await asyncio.sleep(0)


async def test_service_waits_for_an_approval_and_counts_it_once() -> None:
    """Begun, approved, and declined too late."""
    async with service(MemoryStore()) as client:
        run_id = (await client.post("/runs", json={"topics": ["tea", "rain"]})).json()["run_id"]
        waiting = await until(client, run_id, "publish")
        await client.post(f"/runs/{run_id}/approval", json={"step": waiting["step"], "approved": True})
        ended = await until(client, run_id, "__end__")
        await client.post(f"/runs/{run_id}/approval", json={"step": waiting["step"], "approved": False})
        again = await until(client, run_id, "__end__")

    assert waiting["state"]["text"] == ""
    assert ended["state"]["text"] == "about tea; about rain"
    assert again == ended


async def test_service_resumes_at_its_start_what_another_instance_left() -> None:
    """A run that was killed after its first superstep; one that waits for its approval goes no further."""
    from examples.fastapi_service.app import GRAPH, Survey

    store, killed = MemoryStore(), uuid4()
    async with connect(Survey, store=store) as checkpointer:
        await run_superstep(checkpointer, GRAPH, killed, initial=Survey(topics=["tea"]))
        await run_superstep(checkpointer, GRAPH, killed)

    async with service(store) as client:
        resumed = await until(client, killed, "publish")
    async with service(store) as client:
        waiting = await until(client, killed, "publish")

    assert resumed["state"]["notes"] == {"tea": "about tea"}
    assert waiting == resumed


def test_lambda_handler_does_one_superstep_per_invocation(settings: S3Settings) -> None:
    """In processes of their own, as containers are: the second continues where the first one was killed."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import handler\n"
        "for event in ({'run_id': 'my-run', 'topics': ['tea']}, *[{'run_id': 'my-run'}] * int(sys.argv[2])):\n"
        "    answer = handler.handler(event, None)\n"
        "print(answer)"
    )
    environment = os.environ | {
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    answers = [
        subprocess.run(
            [sys.executable, "-c", program, str(EXAMPLES / "lambda_handler"), more],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for more in ("1", "2")
    ]

    assert answers == [
        "{'step': 1, 'finished': False, 'superseded': False, 'notes': {}}\n",
        "{'step': 2, 'finished': True, 'superseded': False, 'notes': {'tea': 'about tea'}}\n",
    ]


@pytest.mark.parametrize("name", ["look_at_a_run.ipynb"])
def test_notebook_gives_the_outputs_it_shows(name: str) -> None:
    """Executed by a kernel, as Jupyter does."""
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(EXAMPLES / name)], capture_output=True, text=True, check=False, timeout=180
    )

    assert done.returncode == 0, done.stderr
