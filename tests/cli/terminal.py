"""The command line in this process on a pseudo-terminal: what a terminal would receive, byte for byte."""

from __future__ import annotations

import os
import pty
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple
from unittest.mock import patch

from s3_checkpoint.cli.app import build
from tests.command_line import Cli


class Seen(NamedTuple):
    """What came out, stdout and stderr together, and the exit code."""

    text: str
    code: int


def run_on_terminal(cli: Cli, arguments: Sequence[str], **env: str) -> Seen:
    """Runs a command with stdout and stderr on a pseudo-terminal; a dumb one unless `env` says otherwise."""
    master, slave = pty.openpty()
    received = bytearray()

    def receive() -> None:
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            received.extend(part)

    reader = threading.Thread(target=receive)
    reader.start()
    variables = {**cli.env, "TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200", "LINES": "50", "PAGER": "cat", **env}
    try:
        with (
            os.fdopen(slave, "w", encoding="utf-8") as terminal,
            patch.dict(os.environ, variables),
            patch.object(sys, "stdout", terminal),
            patch.object(sys, "stderr", terminal),
        ):
            code = _exit_code(arguments)
    finally:
        reader.join()
        os.close(master)
    return Seen(received.decode(errors="surrogateescape"), code)


def _exit_code(arguments: Sequence[str]) -> int:
    try:
        build()(list(arguments), prog_name="s3-checkpoint")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
