"""The Lambda zip: small, complete, and at work with nothing but what is in it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import JsonValue

from s3_checkpoint import S3Settings, SyncS3Checkpointer
from s3_checkpoint.superstep_queue import SuperstepMessage
from tests.conftest import TRANSPORTS
from tests.serverless.conftest import Queue

ROOT = Path(__file__).parent.parent.parent
MACHINE = {"x86_64": "x86_64", "aarch64": "arm64"}.get(os.uname().machine if hasattr(os, "uname") else "")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or MACHINE is None, reason="the zip is for Lambda's machines"),
    pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip"),
]

WORK = """
import json, sys, time
sys.path.insert(0, sys.argv[1])
import app

class Context:
    ends = time.monotonic() + 60
    def get_remaining_time_in_millis(self):
        return int((self.ends - time.monotonic()) * 1000)

for line in sys.stdin:
    print(json.dumps(app.handler(json.loads(line), Context())), flush=True)
app.handler.close()
files = {getattr(module, "__file__", None) for module in sys.modules.values()} - {None}
print(json.dumps(sorted(files)))
"""


@pytest.fixture(scope="module", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def wheels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, packaging: Any) -> Path:
    """The wheels that are pinned, fetched once for all builds and kept in pytest's cache until other ones are pinned.

    Most of a build is pip at the pages of the index. The builds here check the hashes all the same.
    """
    pins = hashlib.sha256(packaging.CONSTRAINTS.read_bytes()).hexdigest()
    cache = getattr(request.config, "cache", None)
    kept: Path = cache.mkdir("wheels") if cache else tmp_path_factory.mktemp("kept")
    kept /= f"{VERSION}-{MACHINE}-{pins[:16]}"
    if not kept.exists():
        folder = kept.with_name(f"{kept.name}.{os.getpid()}")  # its name when it is whole, as another process may fetch
        wanted = packaging.pip("download", VERSION, packaging.MACHINES[str(MACHINE)], packaging.CONSTRAINTS)
        fetched = subprocess.run(
            [sys.executable, *wanted, "--dest", str(folder)], capture_output=True, text=True, timeout=300, check=False
        )
        assert fetched.returncode == 0, fetched.stderr
        with contextlib.suppress(OSError):
            folder.rename(kept)
    return kept


def build(folder: Path, wheels: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`make package` for this very Python, with wheels that have been fetched already."""
    command = [sys.executable, "infra/package_worker.py", "--python", VERSION, "--architecture", str(MACHINE)]
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, transport: str, wheels: Path) -> Path:
    """The zip, built for this very Python as `make package` builds it for Lambda's, with each transport."""
    output = tmp_path_factory.mktemp("package") / "worker.zip"
    built = build(ROOT, wheels, "--transport", transport, "--output", str(output))
    assert built.returncode == 0, built.stderr
    assert f"Runtime=python{VERSION} Architecture={MACHINE}" in built.stderr
    return output


@pytest.fixture(scope="module")
def content(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpacked, as Lambda does."""
    folder = tmp_path_factory.mktemp("task")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(folder)
    return folder


def test_it_is_small_and_has_the_data_of_the_services_used_and_byte_code_for_every_module(
    package: Path, transport: str
) -> None:
    with zipfile.ZipFile(package) as archive:
        entries = {entry.filename: entry.file_size for entry in archive.infolist()}

    services = {name.split("/")[2] for name in entries if name.startswith("botocore/data/") and name.count("/") > 2}
    sources = [Path(name) for name in entries if name.endswith(".py")]
    tag = sys.implementation.cache_tag
    if transport == "obstore":
        assert sum(entries.values()) < 45_000_000
        assert services == {"sqs"}
    else:
        assert sum(entries.values()) < 30_000_000
        assert services == {"s3", "sqs", "sso", "sso-oidc", "sts"}
    assert any(name.startswith("obstore/") for name in entries) == (transport == "obstore")
    assert {"app.py", "graph.py"} <= entries.keys()
    assert not [name for name in entries if name.startswith("s3_checkpoint/demo")]
    assert [path for path in sources if f"{path.parent / '__pycache__' / path.stem}.{tag}.pyc" not in entries] == []
    assert not [name for name in entries if name.endswith((".pyi", ".c", ".pyx"))]


def test_it_runs_with_nothing_else_on_the_machine(
    content: Path,
    transport: str,
    settings: S3Settings,
    queue: Queue,
    sqs: Any,
) -> None:
    """A whole run of the worker's graph, imported from the zip's content and the standard library alone."""
    run_id = uuid4()
    queue.send(SuperstepMessage.begin(run_id, {"topics": ["tea", "rain"]}).model_dump_json())
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "S3_CHECKPOINT_BUCKET": settings.bucket,
        "S3_CHECKPOINT_ENDPOINT_URL": str(settings.endpoint_url),
        "S3_CHECKPOINT_QUEUE_URL": queue.url,
        "S3_CHECKPOINT_TRANSPORT": transport,
    }

    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-W", "error", "-c", WORK, str(content)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        while records := queue.receive():
            worker.stdin.write(json.dumps({"Records": records}) + "\n")
            worker.stdin.flush()
            assert json.loads(worker.stdout.readline()) == {"batchItemFailures": []}
            queue.delete(records[0])
        worker.stdin.close()
        imported = json.loads(worker.stdout.readline())

    assert worker.returncode == 0
    allowed = (str(content), sysconfig.get_paths()["stdlib"], sysconfig.get_paths()["platstdlib"])
    assert [name for name in imported if not name.startswith(allowed)] == []
    assert not [name for name in imported if "site-packages" in name]
    with SyncS3Checkpointer(dict[str, JsonValue], settings) as checkpointer:
        final = checkpointer.load(run_id)
    assert final is not None
    assert final["text"] == "a note about tea; a note about rain"


@pytest.fixture(scope="module")
def packaging() -> Any:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("package_worker", ROOT / "infra" / "package_worker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_everything_in_the_zip_is_pinned_with_the_hashes_of_its_wheels(packaging: Any) -> None:
    """For any Python and architecture: the same file, and no condition that could leave something out."""
    text = packaging.CONSTRAINTS.read_text()
    pins = re.findall(
        r"^([a-z0-9-]+)==([^ ;\n]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )

    assert len(pins) == text.count("==") >= 20
    assert packaging.unpinned(packaging.requirements(), text) == []
    binary = {name: hashes.count("--hash") for name, _, hashes in pins if name in ("aiohttp", "pydantic-core", "yarl")}
    assert len(binary) == 3
    assert min(binary.values()) > 20  # wheels of several Pythons and architectures


def test_a_requirement_that_is_not_pinned_is_told_with_the_command_that_pins_it(packaging: Any) -> None:
    pinned = "Some_Thing==1.0 \\\n    --hash=sha256:0\nother==2\n"

    missing = packaging.unpinned(["some.thing[extra]>=1", "other", "httpx>=0.27"], pinned)

    assert missing == ["httpx>=0.27"]
    assert "\nconstraints:" in (ROOT / "Makefile").read_text()


def test_a_wheel_of_other_bytes_is_not_packaged(tmp_path: Path, wheels: Path) -> None:
    """Whatever the index says today: its hash is not the one that was pinned."""
    for name in ("infra/package_worker.py", "infra/worker", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy(ROOT / name, tmp_path / name)
    constraints = tmp_path / "infra" / "worker" / "constraints.txt"
    constraints.write_text(
        re.sub(r"(?<=six==)(.*?)(?=\n[a-z])", _with_other_hashes, constraints.read_text(), flags=re.DOTALL)
    )

    built = build(tmp_path, wheels)

    assert built.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in built.stderr
    assert "six" in built.stderr
    assert not (tmp_path / "infra" / "build").exists()


def _with_other_hashes(pin: re.Match[str]) -> str:
    return re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, pin[0])


def test_a_library_without_symbols_is_the_same_to_the_loader(content: Path, packaging: Any) -> None:
    """Cut behind the last segment, and loaded all the same; what is no such library stays as it is."""
    libraries = sorted(content.rglob("*.so"))

    assert len(libraries) >= 6
    for library in libraries:
        body = library.read_bytes()
        assert packaging.without_symbols(body) == body  # cut already
        assert body[40:48] == bytes(8)
    assert packaging.without_symbols(b"MZ, or whatever") == b"MZ, or whatever"
