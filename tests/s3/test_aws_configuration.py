"""The AWS configuration holds wherever the settings say nothing, and the settings wherever they say something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_checkpoint import CheckpointError, ConfigurationError, S3Settings, connect
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from tests.s3.hostile_s3 import PLAIN
from tests.s3.test_prepared_requests import Recorder
from tests.states import Counter

KEYS = {"access_key_id": "a", "secret_access_key": "b", "region_name": "eu-west-1"}
ELSEWHERE = "http://127.0.0.1:9"
CHECKSUMS = {"x-amz-checksum-crc32", "x-amz-checksum-sha256", "x-amz-sdk-checksum-algorithm", "x-amz-trailer"}


async def _sent(**fields: Any) -> tuple[str, set[str]]:
    """Where a PUT goes with these settings, and the names of its headers."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **KEYS, **fields})) as client:
        recorder = Recorder(client)
        store = S3ObjectStore(client, S3Settings.model_validate({"bucket": "bucket", **KEYS, **fields}))
        await store.put("k", b"x", PLAIN, mode="create")
        await store.put("k", b"x" * 100_000, PLAIN, mode="create")
    [(_, url, headers, *_), (_, other, *_)] = recorder.sent
    assert url == other  # prepared or not
    return url, {name.lower() for name in headers}


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Writes the AWS configuration file of the default profile."""

    def write(text: str) -> None:
        path = tmp_path / "config"
        path.write_text(f"[default]\n{text}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(path))

    return write


ENDPOINTS: dict[str, Callable[[pytest.MonkeyPatch, Callable[[str], None]], None]] = {
    "AWS_ENDPOINT_URL_S3": lambda m, _: m.setenv("AWS_ENDPOINT_URL_S3", ELSEWHERE),
    "AWS_ENDPOINT_URL": lambda m, _: m.setenv("AWS_ENDPOINT_URL", ELSEWHERE),
    "a profile": lambda _, write: write(f"endpoint_url = {ELSEWHERE}"),
    "a services section": lambda _, write: write(
        f"services = mine\nendpoint_url = http://127.0.0.1:8\n[services mine]\ns3 =\n  endpoint_url = {ELSEWHERE}"
    ),
}


@pytest.mark.parametrize("how", [*ENDPOINTS, "the settings"])
async def test_a_store_is_reached_alike_however_it_is_named(
    monkeypatch: pytest.MonkeyPatch, configured: Callable[[str], None], how: str
) -> None:
    """Story: AWS's checksums stayed on for a store that was reached by the variable."""
    fields = {"endpoint_url": ELSEWHERE} if how == "the settings" else {}
    if how in ENDPOINTS:
        ENDPOINTS[how](monkeypatch, configured)

    url, headers = await _sent(**fields)

    assert url == f"{ELSEWHERE}/bucket/k"
    assert not headers & CHECKSUMS


async def test_a_store_that_aws_configures_needs_no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature has one all the same."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", ELSEWHERE)
    url, _ = await _sent(region_name=None)

    assert url == f"{ELSEWHERE}/bucket/k"


async def test_the_settings_win_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any argument wins over the environment; and a configured endpoint can be ignored."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:8")
    assert (await _sent(endpoint_url=ELSEWHERE))[0] == f"{ELSEWHERE}/bucket/k"

    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    url, headers = await _sent()
    assert url == "https://bucket.s3.eu-west-1.amazonaws.com/k"
    assert headers & CHECKSUMS


@pytest.mark.parametrize(
    ("setting", "of_aws", "endpoint", "expected"),
    [
        (None, None, None, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        (None, "path", None, "https://s3.eu-west-1.amazonaws.com/bucket/k"),
        (None, "virtual", None, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        ("path", "virtual", None, "https://s3.eu-west-1.amazonaws.com/bucket/k"),
        ("path", None, None, "https://s3.eu-west-1.amazonaws.com/bucket/k"),
        ("virtual", "path", None, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        ("auto", "path", None, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        (None, None, "https://store.example", "https://store.example/bucket/k"),
        (None, "virtual", "https://store.example", "https://bucket.store.example/k"),
        ("path", "virtual", "https://store.example", "https://store.example/bucket/k"),
        ("virtual", None, "https://store.example", "https://bucket.store.example/k"),
        ("virtual", "path", "https://store.example", "https://bucket.store.example/k"),
    ],
)
async def test_the_addressing_style_is_a_setting(
    configured: Callable[[str], None], setting: str | None, of_aws: str | None, endpoint: str | None, expected: str
) -> None:
    """Else what the AWS configuration says, else path for an endpoint and the SDK's choice for AWS."""
    if of_aws:
        configured(f"s3 =\n  addressing_style = {of_aws}")

    url, _ = await _sent(addressing_style=setting, endpoint_url=endpoint)

    assert url == expected


def test_an_addressing_style_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from the environment too."""
    monkeypatch.setenv("S3_CHECKPOINT_ADDRESSING_STYLE", "virtual")
    assert S3Settings(bucket="bucket").addressing_style == "virtual"
    with pytest.raises(ConfigurationError, match="addressing_style"):
        S3Settings.model_validate({"bucket": "bucket", "addressing_style": "sideways"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("use_fips_endpoint = true", "https://bucket.s3-fips.us-east-1.amazonaws.com/k"),
        ("use_dualstack_endpoint = true", "https://bucket.s3.dualstack.us-east-1.amazonaws.com/k"),
        ("s3 =\n  use_dualstack_endpoint = true", "https://bucket.s3.dualstack.us-east-1.amazonaws.com/k"),
        ("s3 =\n  use_accelerate_endpoint = true", "https://bucket.s3-accelerate.amazonaws.com/k"),
        ("s3 =\n  us_east_1_regional_endpoint = regional", "https://bucket.s3.us-east-1.amazonaws.com/k"),
    ],
)
async def test_the_kind_of_endpoint_is_as_aws_is_configured(
    configured: Callable[[str], None], text: str, expected: str
) -> None:
    """For requests that are prepared, and for those that are not."""
    configured(text)

    assert (await _sent(region_name="us-east-1"))[0] == expected


async def test_fips_and_an_endpoint_of_ones_own_is_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK leaves FIPS out where an endpoint is given; whatever it does, nothing is half applied."""
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    try:
        url, _ = await _sent(endpoint_url=ELSEWHERE)
    except CheckpointError as error:
        assert isinstance(error, ConfigurationError)  # noqa: PT017 - either is right
    else:
        assert url == f"{ELSEWHERE}/bucket/k"


@pytest.mark.parametrize("endpoint", [None, ELSEWHERE])
@pytest.mark.parametrize("mode", ["when_required", "when_supported"])
@pytest.mark.parametrize("how", ["variable", "file"])
async def test_checksums_are_as_aws_is_configured(
    monkeypatch: pytest.MonkeyPatch, configured: Callable[[str], None], endpoint: str | None, mode: str, how: str
) -> None:
    """Story: `when_required` was overridden for AWS."""
    if how == "variable":
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", mode)
    else:
        configured(f"request_checksum_calculation = {mode}")

    _, headers = await _sent(endpoint_url=endpoint)

    assert bool(headers & CHECKSUMS) == (mode == "when_supported")


async def test_a_signature_version_is_as_aws_is_configured(configured: Callable[[str], None]) -> None:
    """Of the old kind, for a store that knows no other."""
    configured("s3 =\n  signature_version = s3")
    settings = S3Settings.model_validate({"bucket": "bucket", **KEYS, "endpoint_url": ELSEWHERE})
    async with client_for(settings) as client:
        assert client.meta.config.signature_version == "s3"


SECRET = "https://user:hunter2@store.example/base"


def test_an_endpoint_with_a_password_is_never_printed() -> None:
    """Story: `repr(S3Settings)` showed it."""
    settings = S3Settings(bucket="bucket", endpoint_url=SECRET)

    assert "hunter2" not in f"{settings!r} {settings!s} {settings.model_dump_json()} {[settings]}"
    assert "store.example/base" in repr(settings)
    assert settings.endpoint_url == SECRET
    with pytest.raises(ConfigurationError) as caught:
        S3Settings(bucket="bucket", endpoint_url="ftp://user:hunter2@x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("how", ["setting", "variable"])
async def test_an_endpoint_with_a_password_is_refused_on_opening(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """S3 has no passwords; and no error tells it."""
    if how == "variable":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", SECRET)
    settings = S3Settings(bucket="bucket", endpoint_url=SECRET if how == "setting" else None)

    with pytest.raises(ConfigurationError, match="user or a password") as caught:
        await connect(Counter, settings).__aenter__()

    assert "hunter2" not in str(caught.value)
