"""A PostgreSQL server for the time of a measurement, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def server_available() -> bool:
    """Whether `initdb` and `pg_ctl` are on the path."""
    return all(shutil.which(name) for name in ("initdb", "pg_ctl"))


@contextmanager
def postgres_url(scratch: Path) -> Iterator[str]:
    """A new, empty server on a free loopback port, until the block is left."""
    data = scratch / "postgres"
    data.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The server refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        account = pwd.getpwnam(user)
        os.chown(data, account.pw_uid, account.pw_gid)
        for above in (scratch, *scratch.parents):
            if above.stat().st_uid == 0 and above != Path("/") and str(above).startswith(str(scratch)):
                above.chmod(0o755)

    def run(*command: str) -> None:
        subprocess.run(
            command, check=True, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=180, cwd=data
        )

    run("initdb", "-D", str(data), "-U", "bench", "-A", "trust")
    run("pg_ctl", "-D", str(data), "-w", "-l", str(data / "log"),
        "-o", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=", "start")  # fmt: skip
    try:
        yield f"postgresql://bench@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
