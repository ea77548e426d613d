"""The `s3-checkpoint` command. It needs the extra `cli`; without it, `main` says so in one line.

`main` is the entry point; `app` holds the command tree. Nothing of typer or rich is imported before `main` runs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from s3_checkpoint.cli.exit_codes import ExitCode

_NEEDED = ("typer", "rich")


def main() -> None:
    """Runs the command line and leaves the process with one of `ExitCode`.

    Without typer or rich it writes one line to stderr and exits with `ExitCode.CONFIGURATION` (5).
    """
    if any(find_spec(name) is None for name in _NEEDED):
        sys.stderr.write("s3-checkpoint: the command line is not installed; pip install 's3-checkpoint[cli]'\n")
        raise SystemExit(ExitCode.CONFIGURATION)

    try:
        from s3_checkpoint.cli.app import build

        build()(prog_name="s3-checkpoint")
    except KeyboardInterrupt:  # before or after the command itself, which says so by itself
        raise SystemExit(ExitCode.INTERRUPTED) from None
