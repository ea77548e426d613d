"""The examination behind a proxy that loses and garbles answers: never "unsafe" of a sound store, never "safe" of an
unsound one, never an error instead of the table.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import uuid4

import pytest

from s3_checkpoint import S3Settings
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.doctor import Finding, Status, examine
from s3_checkpoint.doctor.bucket import BUCKET
from s3_checkpoint.doctor.examination import PROBES, run_probe
from s3_checkpoint.doctor.findings import Patient
from s3_checkpoint.testing import Verb
from tests.proofs.wire import Garbling, Spoiling, Wire, wire_to


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(status: str, code: str) -> Garbling:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return lambda _: http(status, body, "Content-Type: application/xml")


def flipped(answer: bytes) -> bytes:
    """One bit of the body is wrong; the length is right."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not body:
        return answer
    at = len(body) // 2
    return head + b"\r\n\r\n" + body[:at] + bytes([body[at] ^ 4]) + body[at + 1 :]


GARBLED: dict[str, Spoiling | Garbling] = {
    "refuse": "refuse",
    "cut": "cut",
    "reset": "reset",
    "truncate": "truncate",
    "headless": "headless",
    "portal": lambda _: http("200 OK", b"<html>Please log in</html>", "Content-Type: text/html"),
    "portal, denying": lambda _: http("403 Forbidden", b"<html>no</html>", "Content-Type: text/html"),
    "portal, 404": lambda _: http("404 Not Found", b"<html>not here</html>", "Content-Type: text/html"),
    "empty": lambda _: http("200 OK", b""),
    "no length": lambda _: b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    "no http": lambda _: b"\x00\xff garbage\r\n\r\n",
    "other xml": lambda _: http("200 OK", b"<a><b/></a>", "Content-Type: application/xml"),
    "moved": lambda _: http("301 Moved", b"", "Location: http://127.0.0.1:9/"),
    "gone": lambda _: http("410 Gone", b""),
    "busy": error("503 Slow Down", "SlowDown"),
    "odd code": error("400 Bad Request", "SomethingElse"),
    "no code": lambda _: http("400 Bad Request", b"<Error></Error>", "Content-Type: application/xml"),
    "flipped": flipped,
}
VERBS: tuple[Verb, ...] = ("GetObject", "HeadObject", "PutObject", "ListObjectsV2", "DeleteObjects")


@pytest.fixture
async def wire(moto_url: str) -> AsyncIterator[Wire]:
    async with wire_to(moto_url) as wire:
        yield wire


@pytest.fixture
def through(settings: S3Settings, wire: Wire) -> S3Settings:
    """The bucket through the proxy; one attempt, so that what is lost is not made good by the SDK."""
    return settings.model_copy(update={"endpoint_url": wire.url, "max_attempts": 1})


async def report(settings: S3Settings) -> dict[str, Finding]:
    """Every finding, once; the table is whole."""
    listed = [finding async for finding in examine(settings)]
    found = {finding.probe: finding for finding in listed}
    assert len(found) == len(listed)
    assert [name for name in found if name != "clean-up"] == [probe.name for probe in PROBES]
    return found


def is_called_unsafe(found: dict[str, Finding]) -> bool:
    texts = [finding.found + finding.fix for finding in found.values() if finding.status != Status.PASS]
    return any(finding.unsafe for finding in found.values()) or any("UNSAFE" in text for text in texts)


def without_conditions(head: bytes) -> bytes:
    """As a gateway does that drops the headers it does not know."""
    return re.sub(rb"(?i)\r\nif-none-match:[^\r]*", b"", head)


async def test_a_sound_store_passes_though_the_answer_to_the_winner_of_a_race_is_lost(
    wire: Wire, through: S3Settings
) -> None:
    """Its repeat is refused by its own success: the object is read back, as `commit` does, and is the winner's."""
    lost: list[bytes] = []

    def lose_a_success(answer: bytes) -> bytes:
        if answer.startswith(b"HTTP/1.1 200") and len(lost) < 1:
            lost.append(answer)
            return b""
        return answer

    wire.spoil(lose_a_success, "PutObject", "race-0", times=10_000)

    found = await report(through)

    assert lost
    assert found["create-exclusive"].status == Status.PASS
    assert not is_called_unsafe(found)


def some(names: Iterable[str], every: int) -> list[Any]:
    """One of so many in the ordinary suite, the others with `-m long`: each examination takes seconds."""
    return [name if not n % every else pytest.param(name, marks=pytest.mark.long) for n, name in enumerate(names)]


@pytest.mark.parametrize("name", some(GARBLED, 6))
async def test_a_sound_store_is_never_called_unsafe_whatever_is_lost_here_and_there(
    wire: Wire, through: S3Settings, name: str
) -> None:
    """One answer in twenty, of any request: it may be inconclusive, and no probe of exclusivity fails."""
    drawn = random.Random(name)
    for verb in VERBS:
        for first in drawn.sample(range(1, 80), 4):
            wire.spoil(GARBLED[name], verb, first=first)

    found = await report(through)

    assert not is_called_unsafe(found)
    assert found["create-exclusive"].status != Status.FAIL


@pytest.mark.parametrize("name", some(["cut", "portal", "odd code", "flipped"], 4))
@pytest.mark.parametrize("verb", VERBS)
async def test_a_sound_store_is_never_called_unsafe_though_all_of_a_kind_is_lost(
    wire: Wire, through: S3Settings, verb: Verb, name: str
) -> None:
    """Every answer to one kind of request, always: not safe either."""
    wire.spoil(GARBLED[name], verb, first=1, times=100_000)

    found = await report(through)

    assert not is_called_unsafe(found)
    wrong = {one.status for one in found.values()} & {Status.FAIL, Status.INCONCLUSIVE, Status.WARN}
    assert wrong or verb == "HeadObject"


@pytest.mark.parametrize("name", some(["cut", "portal", "busy", "flipped"], 2))
@pytest.mark.parametrize("verb", ["PutObject", "GetObject"])
async def test_an_unsound_store_is_never_called_safe_whatever_is_lost(
    wire: Wire, through: S3Settings, verb: Verb, name: str
) -> None:
    """A gateway drops the condition, and answers are lost as well: what could not be seen does not pass."""
    wire.rewrite = without_conditions
    drawn = random.Random(name)
    for first in drawn.sample(range(1, 120), 30):
        wire.spoil(GARBLED[name], verb, first=first)
    [probe] = [probe for probe in PROBES if probe.name == "create-exclusive"]

    async with client_for(through) as client:
        patient = Patient(S3ObjectStore(client, through), RunKeys("", uuid4()), through, client)
        found = await run_probe(probe, patient)  # the one probe that says so

    assert found.status in (Status.FAIL, Status.INCONCLUSIVE)


async def test_an_unsound_store_is_unsafe_though_every_success_of_a_race_is_lost(
    wire: Wire, through: S3Settings
) -> None:
    """No writer is told anything; what is stored tells that a later create replaced what was there."""
    wire.rewrite = without_conditions
    wire.spoil("cut", "PutObject", "race-", times=100_000)

    found = await report(through)

    assert found["create-exclusive"].status == Status.FAIL
    assert is_called_unsafe(found)


@pytest.mark.parametrize("name", some([name for name in GARBLED if name != "busy"], 3))
async def test_a_garbled_answer_about_the_bucket_is_a_finding(wire: Wire, through: S3Settings, name: str) -> None:
    """Versioning, lifecycle, encryption, public access: missing and malformed answers never lose the table."""
    for question in ("versioning", "lifecycle", "encryption", "publicAccessBlock"):
        wire.spoil(GARBLED[name], "GetObject", f"?{question}", times=100_000)

    async with client_for(through) as client:
        patient = Patient(S3ObjectStore(client, through), RunKeys("", uuid4()), through, client)
        found = {probe.name: await run_probe(probe, patient) for probe in BUCKET}

    assert not [one for one in found.values() if one.status == Status.FAIL]
    if name not in ("other xml", "flipped"):
        passed = {one.probe for one in found.values() if one.status == Status.PASS}
        assert passed <= ({"versioning"} if name in ("empty", "no length") else set())
