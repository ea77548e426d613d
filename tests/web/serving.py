"""The page's server as a test uses it: in a thread of its own, on a free port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from s3_checkpoint import S3Settings
from s3_checkpoint.web.serving import listen, serve


@contextmanager
def serving(settings: S3Settings, *, refresh_s: float = 0) -> Iterator[str]:
    """The address of the page for the bucket of `settings`."""
    address: Future[str] = Future()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        await serve(settings, listen(0), refresh_s=refresh_s, started=address.set_result)

    task = loop.create_task(run())

    def work() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - the test's thread waits for it
            address.set_exception(error)
        finally:
            loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield address.result(60).rstrip("/")
    loop.call_soon_threadsafe(task.cancel)
    thread.join(60)
    assert not thread.is_alive()
