"""Tried by `make dist` in an environment that has only the wheel: names, a commit, the page's links, the files.

`python -I try_wheel.py WHEEL`, in a folder that is not the repository.
"""

from __future__ import annotations

import asyncio
import re
import sys
import zipfile
from importlib.metadata import metadata, version
from uuid import uuid4

import s3_checkpoint
from s3_checkpoint import ActiveSnapshot, Checkpoint, MemoryStore, connect


async def commit() -> Checkpoint[dict[str, int]] | None:
    """A step, committed and resumed."""
    run_id = uuid4()
    async with connect(dict[str, int], store=MemoryStore()) as checkpointer:
        await checkpointer.commit(run_id, 0, {"n": 1}, [ActiveSnapshot(node_name="a")])
        return await checkpointer.resume(run_id)


def main() -> None:
    """Fails with the first thing that is not as it should be."""
    assert version("s3-checkpoint") == s3_checkpoint.__version__
    assert "site-packages" in str(s3_checkpoint.__file__)
    for name in s3_checkpoint.__all__:
        getattr(s3_checkpoint, name)
    found = asyncio.run(commit())
    assert found is not None
    assert found.state == {"n": 1}

    page = metadata("s3-checkpoint")["Description"]
    relative = [link for link in re.findall(r"\]\(([^)\s]+)\)", page) if not re.match(r"https://|#", link)]
    assert not relative, f"links that lead nowhere on the package page: {relative}"

    names = zipfile.ZipFile(sys.argv[1]).namelist()
    folders = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert folders == {"s3_checkpoint"}, folders
    assert "s3_checkpoint/py.typed" in names
    sys.stderr.write(f"{sys.argv[1]}: {len(names)} files, imports, commits, and its page leads somewhere\n")


if __name__ == "__main__":
    main()
