"""One SHA-256 for each PUT, which S3 compares with what it received; none that is worked out for nothing."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from s3_checkpoint import S3Settings
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.prepared_requests import PREPARED_BYTES
from s3_checkpoint._s3.sdk_internals import note_checksum
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.object_store import ObjectAttributes
from tests.s3.sdk_requests import RequestLog, new_session
from tests.s3.test_prepared_requests import KEYS, Recorder

AWS = S3Settings.model_validate({"bucket": "bucket", **KEYS})
ATTRIBUTES = ObjectAttributes(content_encoding="gzip", metadata={"digest": "of something else"})
BODIES = {"prepared": b"{}", "by the method": b"x" * (PREPARED_BYTES + 1), "hashed in a thread": b"y" * 3 * 1024**2}
OF_CHUNKED_BODIES = {"transfer-encoding", "x-amz-trailer", "x-amz-decoded-content-length", "x-amz-checksum-crc32"}


async def _sent(body: bytes, client: Any) -> tuple[dict[str, str], bytes]:
    """Headers and body of a PUT by this client."""
    recorder = Recorder(client)
    await S3ObjectStore(client, AWS).put("k", body, ATTRIBUTES, mode="create")
    [(_, _, headers, _, sent)] = recorder.sent
    text = {name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
    return text, sent


def _sha256(body: bytes) -> str:
    return b64encode(hashlib.sha256(body).digest()).decode()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_put_to_aws_carries_its_sha256_in_a_header(body: bytes) -> None:
    """In place of a chunked body with a CRC behind it; over TLS the body is not hashed once more for the signature."""
    async with client_for(AWS) as client:
        headers, sent = await _sent(body, client)

    assert headers["x-amz-checksum-sha256"] == _sha256(body)
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["content-encoding"] == "gzip"
    assert not headers.keys() & OF_CHUNKED_BODIES
    assert sent == body


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_checksums_that_are_turned_off_stay_off(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    async with client_for(AWS) as client:
        headers, sent = await _sent(body, client)

    assert not [name for name in headers if name.startswith("x-amz-checksum")]
    assert headers["x-amz-content-sha256"] == hashlib.sha256(body).hexdigest()
    assert sent == body


async def test_a_body_is_signed_where_the_aws_configuration_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\ns3 =\n  payload_signing_enabled = true\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    async with client_for(AWS) as client:
        headers, _ = await _sent(b"{}", client)

    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert headers["x-amz-checksum-sha256"] == _sha256(b"{}")


async def test_an_sdk_that_keeps_no_note_of_checksums_signs_the_body() -> None:
    """The private part, taken away: the header is sent all the same."""
    async with client_for(AWS) as client:
        client.meta.events.unregister("before-call.s3.PutObject", note_checksum)
        headers, sent = await _sent(b"{}", client)

    assert headers["x-amz-checksum-sha256"] == _sha256(b"{}")
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"{}").hexdigest()
    assert sent == b"{}"


async def test_a_session_of_the_application_sends_it_too() -> None:
    settings = S3Settings(bucket="bucket", region_name="eu-west-1")
    async with client_for(settings, new_session("a")) as client:
        headers, _ = await _sent(b"{}", client)

    assert headers["x-amz-checksum-sha256"] == _sha256(b"{}")


async def test_a_client_handed_in_sends_the_checksums_it_was_made_for() -> None:
    async with new_session("a").create_client("s3", region_name="eu-west-1") as client:
        headers, _ = await _sent(b"{}", client)

    assert headers["x-amz-trailer"] == "x-amz-checksum-crc32"
    assert "x-amz-checksum-sha256" not in headers


@pytest.mark.parametrize(("variable", "asked"), [(None, False), ("when_supported", True), ("when_required", False)])
async def test_a_get_asks_for_no_checksum_beside_our_digest(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, asked: bool
) -> None:
    """Unless the AWS configuration asks for it."""
    if variable:
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", variable)
    async with client_for(AWS) as client:
        log, _ = RequestLog(client), Recorder(client, (404, {}, b"<Error><Code>NoSuchKey</Code></Error>"))
        await S3ObjectStore(client, AWS).get("k", max_bytes=1)

    [(_, request)] = log.requests
    assert ("x-amz-checksum-mode" in request.headers) == asked
