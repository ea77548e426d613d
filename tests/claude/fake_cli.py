"""Stands in for the command line that the Claude Agent SDK starts: no model, no network, the same words on its pipes.

It writes the transcript to the disk as the real one does, mirrors it, and answers with how many entries it has found of
the session that it was told to resume.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from uuid import uuid4


def main() -> None:
    arguments = sys.argv[1:]
    resumed = next((word.removeprefix("--resume=") for word in arguments if word.startswith("--resume=")), None)
    if "--resume" in arguments:
        resumed = arguments[arguments.index("--resume") + 1]
    session_id = resumed or str(uuid4())
    project = re.sub(r"[^a-zA-Z0-9]", "-", os.path.realpath("."))
    folder = Path(os.environ["CLAUDE_CONFIG_DIR"]) / "projects" / project
    path = folder / f"{session_id}.jsonl"
    found = len(path.read_text().splitlines()) if path.exists() else 0

    def say(message: dict[str, object]) -> None:
        print(json.dumps(message), flush=True)

    def write(target: Path, entries: list[dict[str, object]]) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("a") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
        say({"type": "transcript_mirror", "filePath": str(target), "entries": entries})

    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "control_request":
            response = {"subtype": "success", "request_id": message["request_id"], "response": {}}
            say({"type": "control_response", "response": response})
        elif message["type"] == "user":
            entries: list[dict[str, object]] = [
                {"type": kind, "uuid": str(uuid4()), "sessionId": session_id, "message": {"content": text}}
                for kind, text in (("user", message["message"]["content"]), ("assistant", "yes"))
            ]
            write(path, entries)
            write(folder / session_id / "subagents" / "agent-1.jsonl", [{"type": "user", "uuid": str(uuid4())}])
            say(
                {
                    "type": "result",
                    "subtype": "success",
                    "duration_ms": 1,
                    "duration_api_ms": 1,
                    "is_error": False,
                    "num_turns": 1,
                    "session_id": session_id,
                    "result": f"{found} entries",
                }
            )


if __name__ == "__main__":
    main()
