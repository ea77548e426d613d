"""Run as a process: one run of a graph, that writes down each task it begins, and stops at one of them for ever."""

import os
import sys
import time
from typing import Any

from s3_checkpoint.langgraph import S3Saver
from tests.langgraph import graphs

TASKS = 6


def main(bucket: str, endpoint: str, log: str, stop_at: str) -> None:
    """Begins the run of thread `killed`, or continues with it; prints the result."""
    written = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def square(task: Any) -> Any:
        os.write(written, f"{task['item']}\n".encode())
        if str(task["item"]) == stop_at:
            print("stopped", flush=True)
            while True:
                time.sleep(60)
        return graphs.square(task)

    with S3Saver.from_conn_string(
        f"s3://{bucket}/killed", endpoint_url=endpoint, access_key_id="testing", secret_access_key="testing"
    ) as saver:
        graph: Any = graphs.map_reduce(square).compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "killed"}}
        begun = graph.get_state(config).next
        print(graph.invoke(None if begun else {"items": list(range(TASKS))}, config)["total"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
