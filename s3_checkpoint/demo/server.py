"""S3 and SQS in a process of their own, on a free port of the loopback interface: moto's server.

`python -m s3_checkpoint.demo.server` writes its URL as one line, and ends when its standard input does, that is, with
the process that started it, however that one ends.
"""

from __future__ import annotations

import logging
import sys
import threading

from s3_checkpoint.testing.local_s3 import OneS3RequestAtATime, moto_services


def main() -> None:
    """Serves until standard input ends."""
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, OneS3RequestAtATime(moto_services()), threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
