"""A moto server behind a gate that decides as IAM does, and users there with the generated policies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import boto3
import pytest

from s3_checkpoint import S3Settings
from s3_checkpoint.testing.local_s3 import moto_services, served
from tests.infra.policy_gate import PolicyGate

REGION = "us-east-1"


@dataclass
class Cloud:
    """The moto server, what an administrator does there, and whether IAM is enforced."""

    url: str
    gate: PolicyGate
    _clients: dict[str, Any] = field(default_factory=dict)

    def client(self, service: str, **credentials: str) -> Any:
        """A boto3 client; without credentials, one of an administrator, who can do as long as IAM is not enforced."""
        keys = credentials or {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        name = json.dumps([service, keys])
        if name not in self._clients:
            self._clients[name] = boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)
        return self._clients[name]

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"iam-{uuid4().hex}"
        self.client("s3").create_bucket(Bucket=name)
        return name

    def new_user(self, policy: dict[str, Any]) -> dict[str, str]:
        """Credentials of a new user with this policy, in the names of `S3Settings`."""
        iam, name = self.client("iam"), f"user-{uuid4().hex}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="checkpoints", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self.gate.identities[key["AccessKeyId"]] = [policy]
        return {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}

    def settings(self, bucket: str, prefix: str = "", **fields: object) -> S3Settings:
        """Settings for a bucket here; an administrator's unless credentials are among the fields."""
        values = {"access_key_id": "testing", "secret_access_key": "testing", **fields}
        return S3Settings.model_validate(
            {"bucket": bucket, "prefix": prefix, "endpoint_url": self.url, "region_name": REGION, **values}
        )

    def enforce(self, on: bool) -> None:
        """Switches moto's own IAM enforcement: from now on every request must be signed and allowed."""
        body = b"0" if on else b"inf"
        request = Request(f"{self.url}/moto-api/reset-auth", body, {"Content-Type": "text/plain"}, method="POST")
        with urlopen(request) as answer:
            assert answer.status == 200

    def close(self) -> None:
        """Closes the clients."""
        for client in self._clients.values():
            client.close()


@pytest.fixture(scope="session")
def served_cloud() -> Iterator[Cloud]:
    """The server: moto's application behind the gate, on a free loopback port."""
    gate = PolicyGate(moto_services())
    with served(gate) as url:
        cloud = Cloud(url, gate)
        yield cloud
        cloud.close()


@pytest.fixture
def cloud(served_cloud: Cloud) -> Iterator[Cloud]:
    """The server with no user known at the gate; IAM is not enforced until a test says so, nor after it."""
    served_cloud.gate.forget()
    yield served_cloud
    served_cloud.enforce(False)
