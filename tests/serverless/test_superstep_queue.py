"""The message, and the client of the queue it travels in."""

from __future__ import annotations

from uuid import uuid4

import pytest
from pydantic import BaseModel, ValidationError

from s3_checkpoint import ConfigurationError, S3Settings
from s3_checkpoint.superstep_queue import SuperstepMessage, queue_client_for

SETTINGS = S3Settings(bucket="bucket")


class State(BaseModel):
    n: int = 0
    name: str = ""


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/runs", "eu-west-1"),
        ("https://sqs.us-gov-east-1.amazonaws.com/123456789012/runs.fifo", "us-gov-east-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/runs", "cn-north-1"),
        ("https://vpce-0a1b-2c3d.sqs.ap-south-1.vpce.amazonaws.com/123456789012/runs", "ap-south-1"),
        ("http://127.0.0.1:5000/123456789012/runs", "us-east-1"),
    ],
)
async def test_the_queue_is_asked_where_its_url_says_wherever_the_bucket_is(url: str, region: str) -> None:
    settings = SETTINGS if region == "us-east-1" else SETTINGS.model_copy(update={"region_name": "sa-east-1"})

    async with queue_client_for(url, settings) as client:
        assert client.meta.region_name == region
        assert client.meta.endpoint_url == url[: url.index("/", 8)]


@pytest.mark.parametrize(
    ("url", "said"),
    [("runs", "must begin with https"), ("https://queue.amazonaws.com/1/runs", "You must specify a region")],
)
async def test_a_url_that_leads_nowhere_is_a_clear_error(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        async with queue_client_for(url, SETTINGS):
            pass


def test_a_message_says_only_what_is_not_self_evident_and_reads_back() -> None:
    run_id = uuid4()
    begin = SuperstepMessage(run_id=run_id, initial=State(n=3))
    go_on = SuperstepMessage(run_id=run_id, step=2, resume=True, update={"name": "x"})

    assert begin.model_dump_json(exclude_defaults=True) == f'{{"run_id":"{run_id}","initial":{{"n":3}}}}'
    body = go_on.model_dump_json(exclude_defaults=True)
    assert body == f'{{"run_id":"{run_id}","step":2,"resume":true,"update":{{"name":"x"}}}}'
    assert SuperstepMessage.model_validate_json(body) == go_on


@pytest.mark.parametrize("fields", [{}, {"step": -1}, {"step": 2**64}, {"step": 1, "initial": {}}, {"step": 1, "x": 1}])
def test_a_message_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SuperstepMessage.model_validate({"run_id": uuid4(), **fields})
