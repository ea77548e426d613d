"""S3 and SQS in a process of their own, on a free port of the loopback interface: moto's server.

`python -m s3_checkpoint.demo.server` writes its URL as one line, and ends when its standard input does, that is, with
the process that started it, however that one ends.
"""

from __future__ import annotations

import sys

from s3_checkpoint.testing.local_s3 import local_s3


def main() -> None:
    """Serves until standard input ends."""
    with local_s3() as s3:
        sys.stdout.write(f"{s3.endpoint_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
