"""S3 and SQS in a process of their own, on a free port of the loopback interface: moto's server.

`python -m s3_checkpoint.demo.server` writes its URL as one line, and ends when its standard input does, that is, with
the process that started it, however that one ends.
"""

from __future__ import annotations

import logging
import sys


def main() -> None:
    """Serves until standard input ends."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
