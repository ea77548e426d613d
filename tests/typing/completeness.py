"""How many public symbols have a type that a checker knows: `python -m tests.typing.completeness` (`make check`).

As `pyright --verifytypes s3_checkpoint --ignoreexternal` in the environment of this interpreter; green from 99 % on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

AT_LEAST = 0.99


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs pyright as in an activated environment: it asks the `python` on the path where packages are."""
    here = str(Path(sys.executable).parent)
    return subprocess.run(
        [sys.executable, "-m", "pyright", *arguments],
        env={**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


def report() -> dict[str, Any]:
    """The score, 0 … 1, and the symbols it counts."""
    answer = pyright("--verifytypes", "s3_checkpoint", "--ignoreexternal", "--outputjson")
    found: dict[str, Any] = json.loads(answer.stdout)["typeCompleteness"]
    return found


if __name__ == "__main__":
    completeness = report()
    for symbol in completeness["symbols"]:
        if symbol["isExported"] and not (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]):
            print(symbol["name"], *(problem["message"] for problem in symbol["diagnostics"]), sep="\n    ")
    total = sum(completeness["exportedSymbolCounts"].values())
    score = completeness["completenessScore"] if total else 0.0
    print(f"types are known of {score:.1%} of {total} public symbols; {AT_LEAST:.0%} are wanted")
    sys.exit(score < AT_LEAST)
