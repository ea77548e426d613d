"""Starts the stub in a process of its own and speaks to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode


class StubProcess:
    """A running stub."""

    def __init__(self, port: int, tls_port: int = 0) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"
        self.tls_url = f"https://127.0.0.1:{tls_port}"

    def set(self, *, latency_ms: float = 0) -> None:
        """From now on answers take this long, and counts start from zero."""
        self._get(f"/-/set?latency_ms={latency_ms}")

    def copy(self, bucket: str, key: str, count: int) -> None:
        """The object at `key`, whose name holds a 20-digit number, is also there with the numbers below `count`."""
        self._get(f"/-/copy?{urlencode({'bucket': bucket, 'key': key, 'count': count})}")

    def counts(self) -> tuple[dict[str, int], int]:
        """Requests by operation, and round trips that waited for one another, since `set`."""
        counts = json.loads(self._get("/-/counts"))
        return counts["requests"], counts["round_trips"]

    def _get(self, path: str) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def running_stub(chain: Path | None = None) -> Iterator[StubProcess]:
    """A stub on a free loopback port, until the block is left; with a certificate and its key, over TLS as well."""
    program = [sys.executable, str(Path(__file__).with_name("s3_stub.py")), *([str(chain)] if chain else [])]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield StubProcess(*map(int, process.stdout.readline().split()))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)
