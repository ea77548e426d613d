"""The suite itself: the stub counts right, the report and the plot are drawn from what was measured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from aiobotocore.session import AioSession

from tests.benchmarks import report, side_by_side
from tests.benchmarks.cold_start import ColdStart
from tests.benchmarks.contestants import Library
from tests.benchmarks.growth_plot import growth_svg
from tests.benchmarks.measuring import Measured
from tests.benchmarks.stub_process import StubProcess, running_stub


@pytest.fixture
async def stub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubProcess]:
    """A stub of its own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "bench")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "bench")
    with running_stub() as stub:
        yield stub


async def test_requests_and_round_trips_of_the_library_are_as_documented(stub: StubProcess, tmp_path: Path) -> None:
    """On the wire, for histories up to 10,000 steps; a 1 MB body asks first."""
    found, missing = await side_by_side.run(stub, tmp_path, [Library], lambda _: None, histories=(100, 1_000))
    by_work = {row.work: (row.requests, row.round_trips) for row in found}

    assert missing == {}
    assert by_work["save 4 KB"] == ({"PutObject": 1}, 1)
    assert by_work["latest of 100"] == ({"ListObjectsV2": 1, "GetObject": 1}, 2)
    assert by_work["latest of 1,000"] == ({"ListObjectsV2": 1, "GetObject": 1}, 2)
    assert by_work["resume of 1,000"] == ({"ListObjectsV2": 1, "GetObject": 2}, 3)
    assert by_work["list 100"] == ({"ListObjectsV2": 1}, 1)


async def test_a_long_history_takes_few_requests_on_the_wire(stub: StubProcess, tmp_path: Path) -> None:
    """10,000 steps: at most 32 LISTs in 4 round trips, and the GET."""
    library = Library(stub.url, tmp_path)
    async with library.stack:
        await library.open()
        await library.save("t", 0, "x")
        run = library.run("t")
        stub.copy("bench", run.state(0), 10_000)
        stub.set(latency_ms=600)  # requests that are sent together are within that time on a busy machine too

        assert await library.latest("t") == 1

        requests, round_trips = stub.counts()
        stub.set()
        assert len(await library.checkpointer.list(run.run_id)) == 10_000
    assert requests["ListObjectsV2"] <= 32
    assert requests["GetObject"] == 1
    assert round_trips <= 5


async def test_the_stub_answers_as_s3_does(stub: StubProcess) -> None:
    """Pages, prefixes, conditions, absence, batch deletes."""
    async with AioSession().create_client("s3", endpoint_url=stub.url, region_name="us-east-1") as client:
        for key in ("a/1", "a/2", "b c", "d"):
            await client.put_object(Bucket="x", Key=key, Body=key.encode(), Metadata={"name": "value"})
        page = await client.list_objects_v2(Bucket="x", MaxKeys=2, Delimiter="/")
        rest = await client.list_objects_v2(Bucket="x", ContinuationToken=page["NextContinuationToken"], Delimiter="/")
        assert [group["Prefix"] for group in page["CommonPrefixes"]] == ["a/"]
        assert [line["Key"] for line in page["Contents"] + rest["Contents"]] == ["b c", "d"]
        answer = await client.get_object(Bucket="x", Key="b c")
        assert (await answer["Body"].read(), answer["Metadata"]) == (b"b c", {"name": "value"})
        with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
            await client.put_object(Bucket="x", Key="d", Body=b"", IfNoneMatch="*")
        await client.delete_objects(Bucket="x", Delete={"Objects": [{"Key": "d"}, {"Key": "none"}]})
        with pytest.raises(client.exceptions.NoSuchKey):
            await client.get_object(Bucket="x", Key="d")


def test_the_report_says_what_holds_and_what_does_not() -> None:
    """With ratios to the first row."""
    rows = [
        Measured("save", "one", {"PutObject": 1}, 1, 2.0, 4.0, 20.0),
        Measured("save", "two", {"PutObject": 2}, 2, 3.0, 4.0, 50.0),
    ]
    colds = [ColdStart("bare", 100, 90, 110), ColdStart("ours", 95, 90, 99)]

    text = report.markdown(rows, {"three": "not installed"}, colds, [("a", "≤ 5", 6, "ms"), ("b", "≥ 2", 2, "")], "")

    assert "| two | 2 PutObject | 2 | 4.0 | 50.0 | 2.50 | 3.00 | 1.50 |" in text
    assert "| a | ≤ 5 | 6 ms | **does not hold** |" in text
    assert "| b | ≥ 2 | 2 | holds |" in text
    assert "three (not installed)" in text
    assert "| ours | 95 | 90 | 99 | 0.95 | 0.90 |" in text


def test_the_plot_is_svg_with_a_line_for_each() -> None:
    """Labels do not cover one another."""
    svg = growth_svg({"s3_checkpoint": [(10, 45.0), (1000, 46.0)], "b & c": [(10, 45.0), (1000, 47.0)]}, "Title")

    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}polyline")) == 2
    heights = [float(text.get("y", "")) for text in root.findall(f"{space}text") if " ms" in (text.text or "")]
    assert abs(heights[0] - heights[1]) >= 16
