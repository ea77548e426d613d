"""Lambda's side of the runtime interface: hands out invocations, takes answers, ends what overruns, starts again.

As documented in "Using the Lambda runtime API for custom runtimes": next invocation, response, error, init error.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4


@dataclass
class Invocation:
    """One event, and what became of it."""

    event: Any
    time_out_s: float
    request_id: str = field(default_factory=lambda: str(uuid4()))
    taken: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    kind: str = "timed out"
    """`response`, `error`, or `timed out`."""
    answer: Any = None
    pid: int = 0


class Function:
    """A function with one execution environment at a time, run by the runtime interface client."""

    def __init__(self, handler: str, environment: dict[str, str], *, log: Any) -> None:
        self.started = 0
        self._handler = handler
        self._log = log
        self._next: queue.Queue[Invocation] = queue.Queue()
        self._in_flight: dict[str, Invocation] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self._environment = {
            **environment,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": "worker",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "TZ": ":UTC",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def invoke(self, event: Any, *, time_out_s: float = 30) -> Invocation:
        """Invokes as the event source does; starts an environment if none is there, ends it at the time-out."""
        if self._process is None or self._process.poll() is not None:
            self.started += 1
            self._next = queue.Queue()  # a request that still waits at the old one was asked by a process that is gone
            self._process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", self._handler],
                env=self._environment,
                stdout=self._log,
                stderr=self._log,
            )
        invocation = Invocation(event, time_out_s, pid=self._process.pid)
        self._next.put(invocation)
        while not invocation.taken.wait(0.05):  # the start of an environment has no part in the time-out
            if self._process.poll() is not None:
                raise RuntimeError(f"the environment ended by itself, with exit code {self._process.returncode}")
        if not invocation.answered.wait(time_out_s):
            self.stop_environment()
        return invocation

    def stop_environment(self) -> None:
        """Ends it as Lambda does: at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Ends everything."""
        self.stop_environment()
        self._server.shutdown()
        self._server.server_close()

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        function = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                invocation = function._next.get()
                function._in_flight[invocation.request_id] = invocation
                invocation.taken.set()
                body = json.dumps(invocation.event).encode()
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.request_id)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + invocation.time_out_s) * 1000)))
                self.send_header(
                    "Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:w"
                )
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                *_, request_id, kind = self.path.split("/")
                invocation = function._in_flight.get(request_id)
                if invocation is not None:
                    invocation.kind, invocation.answer = kind, json.loads(body)
                    invocation.answered.set()
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                pass

        return Handler
