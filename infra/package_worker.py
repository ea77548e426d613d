"""Builds build/worker.zip: worker/, the library, and what it needs of its dependencies. Run it with `make package`.

Wheels are fetched with pip, as it is configured, for the Python and the architecture of the Lambda runtime: those that
worker/constraints.txt names with their hashes, and no others; `make constraints` pins them again. Of botocore's data
only the services used are kept, and byte code comes along: without it a cold start takes three times as long.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SERVICES = {"s3", "sqs", "sso", "sso-oidc", "sts"}
"""Those of botocore's data that are kept: what is called, and what credentials can come from."""
TRANSPORTS = {"aiobotocore": SERVICES, "obstore": {"sqs"}}
"""The same for each transport. obstore finds credentials itself; the SDK is left with sending messages."""
UNUSED = ("*.pyx", "*.pxd", "*.pyi", "*.c", "*.h", "bin", "boto3/data", "boto3/examples")
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
CONSTRAINTS = HERE / "worker" / "constraints.txt"
LIMIT_MB = {"aiobotocore": 30, "obstore": 45}
"""Unpacked. What Lambda allows is 250 MB; obstore is one library of 15 MB, and the SDK still sends the messages."""


def main() -> int:
    """Builds the zip and says what is in it; 1 if it is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.13", metavar="VERSION", help="of the runtime (default: %(default)s)")
    parser.add_argument("--architecture", default="x86_64", choices=MACHINES, help="(default: %(default)s)")
    parser.add_argument(
        "--transport", default="aiobotocore", choices=TRANSPORTS, help="what speaks to S3 (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=HERE / "build" / "worker.zip", help="(default: %(default)s)")
    options = parser.parse_args()

    missing = unpinned(requirements(options.transport), CONSTRAINTS.read_text())
    if missing:
        say(f"{CONSTRAINTS.name} does not pin {', '.join(missing)}; run: make constraints")
        return 1
    with tempfile.TemporaryDirectory() as work:
        content = Path(work) / "content"
        content.mkdir()
        try:
            install(content, options.python, MACHINES[options.architecture], options.transport)
        except subprocess.CalledProcessError as error:
            say(f"pip could not fetch the wheels (exit code {error.returncode}); its own words are above")
            return 1
        left_out = shutil.ignore_patterns("__pycache__", "demo")
        shutil.copytree(ROOT / "s3_checkpoint", content / "s3_checkpoint", ignore=left_out)
        for path in (HERE / "worker").glob("*.py"):
            shutil.copy(path, content)
        trim(content, TRANSPORTS[options.transport])
        if not compile_all(content, options.python):
            say(f"no python{options.python} found: no byte code in the zip, so cold starts take about 0.8 s longer")
        size = write(content, options.output)
    packed = options.output.stat().st_size
    say(
        f"{options.output}: {size / 1e6:.1f} MB unpacked, {packed / 1e6:.1f} MB as zip, for "
        f"Runtime=python{options.python} Architecture={options.architecture} Transport={options.transport}"
    )
    if size > LIMIT_MB[options.transport] * 1e6:
        say(f"that is more than {LIMIT_MB[options.transport]} MB")
        return 1
    return 0


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")


def requirements(transport: str = "aiobotocore") -> list[str]:
    """What the library with this transport, and the worker, need: one requirement each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (HERE / "worker" / "requirements.txt").read_text().splitlines()
    own = [re.sub(r"(^|\s)#.*", "", line).strip() for line in lines]
    light = project["optional-dependencies"]["obstore"] if transport == "obstore" else []
    return [*project["dependencies"], *light, *filter(None, own)]


def pinned(constraints: str, transport: str) -> str:
    """What is pinned, without the transport that is not wanted."""
    if transport == "obstore":
        return constraints
    return re.sub(r"^obstore==.*\n(?:[ \t].*\n)*", "", constraints, flags=re.MULTILINE)


def unpinned(required: list[str], constraints: str) -> list[str]:
    """Those of `required` that `constraints` has no version of."""

    def name(text: str) -> str:
        found = re.match(r"[A-Za-z0-9._-]+", text)
        return re.sub(r"[-_.]+", "-", found[0]).lower() if found else text

    pinned = {name(line) for line in constraints.splitlines() if "==" in line}
    return [requirement for requirement in required if name(requirement) not in pinned]


def install(content: Path, version: str, machine: str, transport: str = "aiobotocore") -> None:
    """Installs what is pinned, as it is for the runtime; fails if it is not what is required, or not the same bytes."""
    bounds = content.parent / "bounds.txt"
    # pip: no extras here
    bounds.write_text("".join(re.sub(r"\[.*?\]", "", line) + "\n" for line in requirements(transport)))
    wanted = content.parent / "wanted.txt"
    wanted.write_text(pinned(CONSTRAINTS.read_text(), transport))
    # No warning of conflicts with what is installed here, and has no part in this.
    options = ["--no-compile", "--no-warn-conflicts", "--target", str(content), "--constraint", str(bounds)]
    subprocess.run([sys.executable, *pip("install", version, machine, wanted), *options], check=True)  # noqa: S603


def pip(command: str, version: str, machine: str, wanted: Path) -> list[str]:
    """What Python is told to have pip install or download the wheels that `wanted` names, for the runtime."""
    return [
        *("-m", "pip", command, "--quiet", "--disable-pip-version-check"),
        *("--implementation", "cp", "--python-version", version),
        *("--platform", f"manylinux2014_{machine}", "--platform", f"manylinux_2_28_{machine}"),
        *("--only-binary", ":all:", "--require-hashes", "--requirement", str(wanted)),
    ]


def trim(content: Path, services: set[str]) -> None:
    """Removes what is never read: services not called, sources of compiled code, examples."""
    for service in (content / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in services:
            shutil.rmtree(service)
    for pattern in UNUSED:
        for path in list(content.glob(pattern) if "/" in pattern or "*" not in pattern else content.rglob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for library in content.rglob("*.so*"):
        library.write_bytes(without_symbols(library.read_bytes()))


def without_symbols(library: bytes) -> bytes:
    """A shared library without what debuggers read: half of these libraries is that.

    What a process maps are the segments that the program headers name; whatever comes behind the last of them, and the
    table of sections, is for tools. So it is cut there. Written out, because `strip` knows one architecture only.
    Anything but 64-bit little-endian ELF is left as it is. Source: "Tool Interface Standard, ELF specification".
    """
    if library[:6] != b"\x7fELF\x02\x01":
        return library
    (table,) = struct.unpack_from("<Q", library, 32)
    entry_size, entries = struct.unpack_from("<HH", library, 54)
    end = table + entry_size * entries
    for index in range(entries):
        offset, _, _, size = struct.unpack_from("<QQQQ", library, table + entry_size * index + 8)
        end = max(end, offset + size)
    header = bytearray(library[:64])
    struct.pack_into("<Q", header, 40, 0)  # no table of sections,
    struct.pack_into("<HH", header, 60, 0, 0)  # of no length, and no names for them
    return bytes(header) + library[64:end]


def compile_all(content: Path, version: str) -> bool:
    """Adds byte code of that version; False if there is no such Python on this machine."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = sys.executable if version == ours else shutil.which(f"python{version}")
    if python is None:
        return False
    # Unchecked: sources do not change in Lambda, and unpacking does not keep its time.
    command = [python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    # Lambda unpacks to /var/task: that is what tracebacks then say.
    command += ["-s", str(content), "-p", "/var/task", str(content)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603


def write(content: Path, output: Path) -> int:
    """Writes the zip, the same bytes for the same content, and returns the size of what is in it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as package:
        for path in sorted(path for path in content.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(content).as_posix())
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            package.writestr(entry, path.read_bytes())
            size += path.stat().st_size
    return size


if __name__ == "__main__":
    sys.exit(main())
