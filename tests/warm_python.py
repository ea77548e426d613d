"""Programs in processes of their own, forked from one that has imported the libraries: most of a small program is that.

`python -m tests.warm_python MODULE …` imports the modules, and runs a program for each line of JSON on its standard
input. Nothing but the imports is shared: no thread, loop, client or setting is there before the fork.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


class WarmPython:
    """Runs programs as `python SCRIPT` does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, script: Path, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
        """A program, to its end; its output goes through files beside it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = script.with_suffix(".out"), script.with_suffix(".err")
        job = {"script": str(script), "env": dict(env), "cwd": str(cwd), "out": str(out), "err": str(err)}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return subprocess.CompletedProcess([str(script)], code, out.read_text(), err.read_text())


@contextmanager
def warm_python(*modules: str) -> Iterator[WarmPython]:
    """A process with these modules, as long as the block."""
    command = [sys.executable, "-m", "tests.warm_python", *modules]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield WarmPython(process)
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    """Forks for each line; the child returns from here, and so ends as a program does."""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            job = json.loads(line)
            _become(job)
            _execute(job["script"])
            return
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(job: dict[str, object]) -> None:
    """A process with the job's folder and environment, no input, and its output in the job's files."""
    os.chdir(str(job["cwd"]))
    os.environ.clear()
    os.environ.update(dict(job["env"]))  # type: ignore[call-overload]
    for descriptor, path, flags in ((0, os.devnull, 0), (1, job["out"], os.O_CREAT), (2, job["err"], os.O_CREAT)):
        opened = os.open(str(path), os.O_WRONLY | flags if flags else os.O_RDONLY, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)


def _execute(script: str) -> None:
    sys.argv = [script]
    sys.path[0] = str(Path(script).parent)
    program = types.ModuleType("__main__")
    program.__file__ = script
    sys.modules["__main__"] = program
    exec(compile(Path(script).read_text(), script, "exec"), program.__dict__)  # the program


if __name__ == "__main__":
    main()
