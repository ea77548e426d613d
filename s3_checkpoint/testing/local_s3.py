"""An S3 for tests, on a free port of the loopback interface: moto's server in a thread of this process:

    with local_s3() as s3:
        async with connect(Research, s3.new_bucket()) as checkpointer: …

It does what a memory store cannot: requests go over HTTP, and subprocesses reach it too. Needs the extra `testing`.
`moto.mock_aws` is no help: it patches the calls of botocore, and this library makes them with aiobotocore.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, Unpack
from urllib.request import Request, urlopen
from uuid import uuid4

from s3_checkpoint.settings import S3Options, S3Settings

_logger = logging.getLogger(__name__)
Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application."""


class OneS3RequestAtATime:
    """Makes moto's S3 keep what S3 promises to two workers at once.

    Left to itself it looks whether a key is there, and writes it later; and shows an object before its metadata.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers one request."""
        if "/s3/aws4_request" not in environ.get("HTTP_AUTHORIZATION", ""):
            return self._application(environ, start_response)
        with self._lock:
            return list(self._application(environ, start_response))


def moto_services() -> Application:
    """Moto's server as an application: S3, SQS, IAM and others, told apart by what a request is signed for.

    moto looks through its own folders twice for each request, to tell a service from a host name.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    services: Any = DomainDispatcherApplication(create_backend_app)
    services.get_backend_for_host = functools.cache(services.get_backend_for_host)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ["RAW_URI"] = environ["REQUEST_URI"]  # moto's server's name for it, and the one of ours
        answer: Iterable[bytes] = services(environ, start_response)
        return answer

    return application


class LocalS3:
    """A server that `local_s3` started."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url: str = endpoint_url
        """`http://127.0.0.1:<port>`. moto's other services answer there too: SQS, IAM, …"""
        self._buckets: list[str] = []

    def new_bucket(self, **options: Unpack[S3Options]) -> S3Settings:
        """Settings for a new, empty bucket with a name of its own.

        Args:
            options: Other fields of `S3Settings`. Default: credentials that the server takes, and what the environment
                says.

        Returns:
            Settings for `connect`; `settings.environment()` gives them to another process.
        """
        bucket = f"test-{uuid4().hex}"
        urlopen(Request(f"{self.endpoint_url}/{bucket}", method="PUT")).close()  # noqa: S310 - loopback
        self._buckets.append(bucket)
        options.setdefault("endpoint_url", self.endpoint_url)
        options.setdefault("region_name", "us-east-1")
        options.setdefault("access_key_id", "testing")
        options.setdefault("secret_access_key", "testing")
        return S3Settings.resolve(bucket, **options)

    def forget(self, *buckets: str) -> None:
        """Drops buckets with all that was ever written to them; moto would keep it as long as the process lives.

        Args:
            buckets: Names. Default: all that were made here.
        """
        from moto.s3.models import FakeAcl, FakeGrant, FakeGrantee, FakeKey, s3_backends

        dropped = set(buckets or self._buckets)
        for backend in (backend for account in s3_backends.values() for backend in account.values()):
            for bucket in dropped:
                backend.buckets.pop(bucket, None)
        objects: Any = FakeKey
        permissions: list[Any] = [FakeAcl, FakeGrant, FakeGrantee]
        for written in objects.instances_tracked:  # overwritten and deleted ones, too
            if written.bucket_name in dropped:
                written.dispose()
        objects.instances_tracked[:] = [one for one in objects.instances_tracked if one.bucket_name not in dropped]
        for kind in permissions:
            kind.instances_tracked.clear()


@contextmanager
def served(application: Application) -> Iterator[str]:
    """`application` at a URL of its own on the loopback interface, in threads of this process, for the block.

    Connections are kept open between requests, as S3 keeps them.
    """
    from cheroot.wsgi import Server

    server = Server(
        ("127.0.0.1", 0),
        application,
        numthreads=64,  # some wait: for a message of a queue, or for a test that holds an answer back
        request_queue_size=1024,
        timeout=24 * 3600,  # S3 hangs up after some seconds, but here a test may have been halted in a debugger
        shutdown_timeout=1,
    )
    server.keep_alive_conn_limit = 10_000
    setattr(server, "error_log", _log_error)  # noqa: B010 - else written to standard error: clients that are killed hang up
    server.prepare()
    serving = threading.Thread(target=server.serve, name="loopback-server", daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.bind_addr[1]}"
    finally:
        server.stop()
        serving.join()


def _log_error(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    _logger.debug("%s", message, exc_info=traceback)


@contextmanager
def local_s3() -> Iterator[LocalS3]:
    """An S3 that answers as long as the block runs, for this process and others of this machine.

    Conditional writes are exclusive, however many clients write at once. What it does not do as S3: time-outs, 503s and
    lost answers are the wrappers' part, permissions are not checked.

    Raises:
        ModuleNotFoundError: The extra `testing` is not installed.
    """
    try:
        import cheroot  # noqa: F401 - for `served`

        services = moto_services()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a local S3 needs moto's server: pip install 's3-checkpoint[testing]'", name=error.name
        ) from error
    with served(OneS3RequestAtATime(services)) as url:
        s3 = LocalS3(url)
        try:
            yield s3
        finally:
            s3.forget()
