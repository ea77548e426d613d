"""A queue beside the bucket, and Lambda's side of it: records as the event source makes them, and a context."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.backends import get_backend

KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


@dataclass
class Context:
    """Lambda's context: how long until the invocation would be ended."""

    ends: float

    @classmethod
    def of(cls, seconds: float) -> Context:
        return cls(time.monotonic() + seconds)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.ends - time.monotonic()) * 1000)


class Queue:
    """An SQS queue as Lambda's event source uses it."""

    def __init__(self, client: Any, **attributes: str) -> None:
        self.client = client
        fifo = ".fifo" if attributes.get("FifoQueue") else ""
        answer = client.create_queue(QueueName=f"test-{uuid4().hex}{fifo}", Attributes=attributes)
        self.url: str = answer["QueueUrl"]

    def send(self, body: str, **options: Any) -> str:
        return str(self.client.send_message(QueueUrl=self.url, MessageBody=body, **options)["MessageId"])

    def receive(self, *, wait_s: int = 0, most: int = 1) -> list[dict[str, Any]]:
        """The records of an event."""
        answer = self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=most, WaitTimeSeconds=wait_s, AttributeNames=["All"]
        )
        return [record_of(message) for message in answer.get("Messages", ())]

    def delete(self, record: dict[str, Any]) -> None:
        self.client.delete_message(QueueUrl=self.url, ReceiptHandle=record["receiptHandle"])

    def counts(self) -> tuple[int, int]:
        """How many messages can be received, and how many are delayed."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed"]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    def sent_late(self) -> int:
        """How many of the messages that are there were sent with a delay, whether it is over by now or not."""
        queue = get_backend("sqs")["123456789012"]["us-east-1"].queues[self.url.rpartition("/")[2]]
        return sum(message.delayed_until > 0 for message in queue._messages)

    def arn(self) -> str:
        names = ["QueueArn"]
        return str(self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]["QueueArn"])


def record_of(message: dict[str, Any]) -> dict[str, Any]:
    """A message as the event source hands it to the function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "awsRegion": "us-east-1",
    }


@pytest.fixture
def sqs(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client, and credentials in the environment as Lambda gives them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("sqs", endpoint_url=moto_url, region_name="us-east-1", **KEYS)
    yield client
    client.close()


@pytest.fixture
def queue(sqs: Any) -> Queue:
    """An empty queue; what is received stays hidden until the test is over."""
    return Queue(sqs)
