"""Both templates deployed through moto's CloudFormation; the library then works in the deployed bucket.

moto's CloudFormation creates the bucket, queues, role, log group, function and event source. Of the bucket it applies
the name, and of its encryption the algorithm and key; it skips bucket and queue policies and alarms.
tests/infra/test_templates.py reads these in the template, tests/infra/test_bucket_policy.py has the policy decide.
"""

from __future__ import annotations

import ast
import io
import json
import zipfile
from typing import Any
from uuid import UUID, uuid4

import pytest
from botocore.exceptions import ClientError
from pydantic import BaseModel

from s3_checkpoint import (
    END,
    AccessDeniedError,
    ActiveSnapshot,
    Graph,
    Next,
    S3Checkpointer,
    SyncS3Checkpointer,
    Task,
    connect,
)
from s3_checkpoint.aws_lambda import sqs_handler
from tests.infra.conftest import Cloud
from tests.infra.stack import ACCOUNT, INFRA, REGION, translated

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse .* not supported by moto:UserWarning")

RUN = UUID("6b1f8f6e-0c43-4cf0-9f0e-1d5a6b7c8d9e")
NEXT = [ActiveSnapshot(node_name="write")]


class Note(BaseModel):
    text: str = ""


def deploy(cloud: Cloud, template: str, **parameters: str) -> tuple[dict[str, str], dict[str, str]]:
    """Outputs of the new stack, and its resources' physical names."""
    formation, name = cloud.client("cloudformation"), f"stack-{uuid4().hex[:12]}"
    formation.create_stack(
        StackName=name,
        TemplateBody=template,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
    )
    (stack,) = formation.describe_stacks(StackName=name)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    resources = formation.describe_stack_resources(StackName=name)["StackResources"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}
    return outputs, {r["LogicalResourceId"]: r["PhysicalResourceId"] for r in resources if "PhysicalResourceId" in r}


def deploy_everything(cloud: Cloud, **parameters: str) -> tuple[dict[str, str], dict[str, str]]:
    """template.yaml, packaged and translated as `sam deploy` does."""
    artifacts = cloud.new_bucket()
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", "handler = print\n")
    cloud.client("s3").put_object(Bucket=artifacts, Key="worker.zip", Body=code.getvalue())
    return deploy(cloud, json.dumps(translated(artifacts, "worker.zip")), **parameters)


async def works(checkpointer: S3Checkpointer[Note]) -> None:
    await checkpointer.save(RUN, 0, Note(text="saved"))
    await checkpointer.commit(RUN, 1, Note(text="committed"), NEXT)
    resumed = await checkpointer.resume(RUN)
    assert resumed is not None
    assert (resumed.step, resumed.state, list(resumed.active)) == (1, Note(text="committed"), NEXT)
    assert await checkpointer.list(RUN) == [0, 1]


async def test_the_library_works_in_the_bucket_of_bucket_yaml(cloud: Cloud) -> None:
    """The storage alone, under a name of one's own."""
    name = f"mine-{uuid4().hex}"

    outputs, _ = deploy(cloud, (INFRA / "bucket.yaml").read_text(), BucketName=name, Prefix="team/app")

    assert outputs == {"BucketName": name, "BucketArn": f"arn:aws:s3:::{name}", "Prefix": "team/app"}
    async with connect(Note, cloud.settings(name, outputs["Prefix"])) as checkpointer:
        await works(checkpointer)


def test_the_bucket_is_encrypted_with_the_key_given(cloud: Cloud) -> None:
    """What CloudFormation made of the parameter, asked of S3."""
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"

    outputs, _ = deploy(cloud, (INFRA / "bucket.yaml").read_text(), KmsKeyArn=key)

    found = cloud.client("s3").get_bucket_encryption(Bucket=outputs["BucketName"])["ServerSideEncryptionConfiguration"]
    (rule,) = found["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}


def assumed(cloud: Cloud, outputs: dict[str, str]) -> dict[str, str]:
    """Credentials of the deployed worker role, in boto3's names; the gate decides by the role's own policies."""
    iam, role = cloud.client("iam"), outputs["WorkerRoleArn"]
    found = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="worker")["Credentials"]
    name = role.rpartition("/")[2]
    assert iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"] == []
    policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in policies]
    # moto gives the documents of CloudFormation's roles as Python writes them, and leaves None for AWS::NoValue.
    plain = [ast.literal_eval(document) for document in documents]
    cloud.gate.identities[found["AccessKeyId"]] = [
        {"Statement": [statement for statement in document["Statement"] if statement]} for document in plain
    ]
    return {
        "aws_access_key_id": found["AccessKeyId"],
        "aws_secret_access_key": found["SecretAccessKey"],
        "aws_session_token": found["SessionToken"],
    }


async def test_the_deployed_role_does_the_work_of_a_worker_and_no_other(cloud: Cloud) -> None:
    """With the credentials of the role: checkpoints under the prefix, its own queue; nothing outside it."""
    outputs, names = deploy_everything(cloud)
    keys = assumed(cloud, outputs)
    ours = {name.removeprefix("aws_"): value for name, value in keys.items()}
    sqs: Any = cloud.client("sqs", **keys)

    async with connect(Note, cloud.settings(outputs["BucketName"], outputs["Prefix"], **ours)) as checkpointer:
        await works(checkpointer)
    async with connect(Note, cloud.settings(outputs["BucketName"], "other", **ours)) as checkpointer:
        with pytest.raises(AccessDeniedError):
            await checkpointer.save(RUN, 0, Note())
    cloud.client("lambda").update_event_source_mapping(UUID=names["WorkerFunctionSuperstep"], Enabled=False)
    sqs.send_message(QueueUrl=outputs["QueueUrl"], MessageBody="{}")
    (message,) = sqs.receive_message(QueueUrl=outputs["QueueUrl"])["Messages"]
    sqs.delete_message(QueueUrl=outputs["QueueUrl"], ReceiptHandle=message["ReceiptHandle"])
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.send_message(QueueUrl=outputs["DeadLetterQueueUrl"], MessageBody="{}")
    with pytest.raises(ClientError, match="AccessDenied"):
        sqs.purge_queue(QueueUrl=outputs["QueueUrl"])

    assert cloud.gate.denied == ["s3:PutObject", "sqs:SendMessage", "sqs:PurgeQueue"]


class Invocation:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def test_the_handler_carries_a_run_on_with_what_was_deployed(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function's variables and the role's credentials are all that the handler needs: it is refused nothing."""
    outputs, names = deploy_everything(cloud)
    functions: Any = cloud.client("lambda")
    functions.update_event_source_mapping(UUID=names["WorkerFunctionSuperstep"], Enabled=False)
    deployed = functions.get_function_configuration(FunctionName=outputs["WorkerFunctionName"])
    # In place of AWS: its endpoints, here on loopback.
    queue_url = f"{cloud.url}/{ACCOUNT}/{outputs['QueueUrl'].rpartition('/')[2]}"
    here = {"S3_CHECKPOINT_ENDPOINT_URL": cloud.url, "S3_CHECKPOINT_QUEUE_URL": queue_url, "AWS_REGION": REGION}
    keys = {name.upper(): value for name, value in assumed(cloud, outputs).items()}
    for name, value in {**deployed["Environment"]["Variables"], **here, **keys}.items():
        monkeypatch.setenv(name, value)

    async def write(state: Note, task: Task) -> Next:
        return Next("x", "write" if len(state.text) < 2 else END)

    graph = Graph(start="write", nodes={"write": write}, apply=lambda state, update: Note(text=state.text + update))
    handler = sqs_handler(graph, Note)
    sqs: Any = cloud.client("sqs")
    sqs.send_message(QueueUrl=queue_url, MessageBody=json.dumps({"run_id": str(RUN), "initial": {"text": ""}}))
    for _ in range(4):
        (message,) = sqs.receive_message(QueueUrl=queue_url)["Messages"]
        record = {"messageId": message["MessageId"], "body": message["Body"], "attributes": {}}
        assert handler({"Records": [record]}, Invocation()) == {"batchItemFailures": []}
        sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
    handler.close()

    assert "Messages" not in sqs.receive_message(QueueUrl=queue_url, WaitTimeSeconds=0)
    with SyncS3Checkpointer(Note, cloud.settings(outputs["BucketName"], outputs["Prefix"])) as checkpointer:
        assert checkpointer.load(RUN) == Note(text="xxx")
    assert cloud.gate.denied == []


def test_the_deployed_worker_is_wired_to_bucket_queue_and_log(cloud: Cloud) -> None:
    """Function, event source and queue as Lambda and SQS tell them."""
    outputs, names = deploy_everything(cloud, WorkerTimeoutSeconds="120", ObjectTags='{"team":"a"}')

    function = cloud.client("lambda").get_function_configuration(FunctionName=outputs["WorkerFunctionName"])
    (source,) = cloud.client("lambda").list_event_source_mappings(FunctionName=outputs["WorkerFunctionName"])[
        "EventSourceMappings"
    ]
    sqs = cloud.client("sqs")
    queue = sqs.get_queue_attributes(QueueUrl=outputs["QueueUrl"], AttributeNames=["All"])["Attributes"]
    dead = sqs.get_queue_attributes(QueueUrl=outputs["DeadLetterQueueUrl"], AttributeNames=["All"])["Attributes"]

    assert function["Handler"] == "app.handler"
    assert function["Role"] == outputs["WorkerRoleArn"]
    assert function["Environment"]["Variables"] == {
        "S3_CHECKPOINT_BUCKET": outputs["BucketName"],
        "S3_CHECKPOINT_PREFIX": outputs["Prefix"],
        "S3_CHECKPOINT_EXPECTED_BUCKET_OWNER": ACCOUNT,
        "S3_CHECKPOINT_OBJECT_TAGS": '{"team":"a"}',
        "S3_CHECKPOINT_QUEUE_URL": outputs["QueueUrl"],
        "S3_CHECKPOINT_TRANSPORT": "aiobotocore",
    }
    assert source["EventSourceArn"] == queue["QueueArn"]
    assert int(queue["VisibilityTimeout"]) == 6 * function["Timeout"] == 720
    assert json.loads(queue["RedrivePolicy"]) == {"deadLetterTargetArn": dead["QueueArn"], "maxReceiveCount": 5}
    (group,) = cloud.client("logs").describe_log_groups(logGroupNamePrefix=names["WorkerLogGroup"])["logGroups"]
    assert group["retentionInDays"] == 30
