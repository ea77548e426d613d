"""The templates: free of findings, and saying what infra/README.md promises of them."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

import pytest

from s3_checkpoint.policy import iam_policy
from s3_checkpoint.superstep_queue import SuperstepMessage
from tests.infra.stack import ACCOUNT, INFRA, REGION, STACK, Template, read, resolved, translated

KEY_ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture(scope="module")
def template() -> Template:
    return read("template.yaml")


@pytest.fixture(scope="module")
def as_deployed() -> Template:
    """template.yaml translated from SAM."""
    return translated("artifacts", "worker.zip")


def properties(template: Template, logical: str, **parameters: str) -> dict[str, Any]:
    names = {
        "CheckpointBucket": "my-bucket",
        "SuperstepQueue": "steps",
        "DeadLetterQueue": "dead",
        "WorkerFunction": "worker",
    }
    found: dict[str, Any] = resolved(template, names, **parameters)[logical]["Properties"]
    return found


def statements(role: dict[str, Any]) -> list[dict[str, Any]]:
    return [statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]]


def findings(template: str) -> list[str]:
    """What cfn-lint says of it; its informational rules count."""
    from cfnlint.api import lint
    from cfnlint.config import ManualArgs

    config = ManualArgs(include_checks=["I"], regions=[REGION])
    return [f"{match.rule.id} {match.message}" for match in lint(template, config=config)]


@pytest.mark.parametrize("name", ["bucket.yaml", "template.yaml"])
def test_cfn_lint_finds_nothing(name: str) -> None:
    """Neither errors, nor warnings, nor informational findings."""
    assert findings((INFRA / name).read_text()) == []


def test_cfn_lint_would_find_something() -> None:
    """A misspelt property is a finding."""
    text = (INFRA / "bucket.yaml").read_text().replace("BlockPublicAcls", "BlockPublicAcl")

    assert findings(text) != []


def test_cfn_lint_finds_nothing_in_what_sam_makes_of_it(as_deployed: Template) -> None:
    """CloudFormation gets the translation, not the file."""
    assert findings(json.dumps(as_deployed)) == []


def test_the_storage_is_the_same_in_both_templates(template: Template) -> None:
    """bucket.yaml is the storage of template.yaml, word for word."""
    bucket = read("bucket.yaml")

    for section in ("Parameters", "Conditions", "Resources", "Outputs"):
        for name, value in bucket[section].items():
            assert template[section][name] == value


@pytest.mark.parametrize("name", ["bucket.yaml", "template.yaml"])
def test_the_bucket_is_private_versioned_and_outlives_the_stack(name: str) -> None:
    """What keeps a run from being seen, overwritten for good, or dropped with a stack."""
    template = read(name)
    bucket = template["Resources"]["CheckpointBucket"]
    found = properties(template, "CheckpointBucket")

    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("Retain", "Retain")
    assert set(found["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(found["PublicAccessBlockConfiguration"]) == 4
    assert found["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert found["VersioningConfiguration"] == {"Status": "Enabled"}


def test_old_versions_and_unfinished_uploads_go() -> None:
    """Nothing is paid for that no call can reach."""
    rules = {
        rule["Id"]: rule
        for rule in properties(read("bucket.yaml"), "CheckpointBucket")["LifecycleConfiguration"]["Rules"]
    }

    assert set(rules) == {"forget-old-versions", "abort-unfinished-uploads"}
    assert rules["forget-old-versions"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": "7"}
    assert rules["abort-unfinished-uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_runs_expire_by_tag_only_when_asked() -> None:
    """Without the parameter no rule ever deletes a current object."""
    found = properties(read("bucket.yaml"), "CheckpointBucket", ExpireTaggedRunsAfterDays="30")
    (rule,) = [rule for rule in found["LifecycleConfiguration"]["Rules"] if rule["Id"] == "expire-tagged-runs"]

    assert rule["ExpirationInDays"] == "30"
    assert rule["TagFilters"] == [{"Key": "s3-checkpoint-retention", "Value": "temporary"}]


def test_encryption_is_by_s3_unless_a_key_is_given() -> None:
    """With a key of one's own a bucket key is used: KMS is not asked for every object."""

    def encryption(**parameters: str) -> Any:
        found = properties(read("bucket.yaml"), "CheckpointBucket", **parameters)
        return found["BucketEncryption"]["ServerSideEncryptionConfiguration"]

    assert encryption() == [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    assert encryption(KmsKeyArn=KEY_ARN) == [
        {
            "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY_ARN},
            "BucketKeyEnabled": True,
        }
    ]


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, {}),
        ({"KmsKeyArn": KEY_ARN}, {"kms_key_arn": KEY_ARN}),
        ({"ObjectTags": '{"s3-checkpoint-retention":"temporary"}'}, {"object_tags": True}),
        ({"Prefix": "team/app"}, {"prefix": "team/app"}),
    ],
    ids=["plain", "key", "tags", "prefix"],
)
def test_the_workers_role_is_the_generated_policy(
    template: Template, parameters: dict[str, str], options: dict[str, Any]
) -> None:
    """What the worker may do to the bucket is what `s3-checkpoint policy worker` prints, for every parameter."""
    role = properties(template, "WorkerRole", **parameters)
    (own,) = [policy["PolicyDocument"] for policy in role["Policies"] if policy["PolicyName"] == "checkpoints"]

    assert own == iam_policy("worker", "my-bucket", **{"prefix": "checkpoints", **options})


def test_the_worker_may_touch_its_own_queue_log_and_prefix_only(as_deployed: Template) -> None:
    """No action and no resource is a wildcard by itself, and no managed policy adds any."""
    role = properties(as_deployed, "WorkerRole", KmsKeyArn=KEY_ARN)

    assert "ManagedPolicyArns" not in role
    for statement in statements(role):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert not any("*" in action for action in actions)
        assert all(re.search(r":my-bucket|:steps$|<WorkerLogGroup>|:key/", resource) for resource in resources)
    queue = {action for s in statements(role) for action in s["Action"] if action.startswith("sqs:")}
    polling = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
    assert queue == polling | {"sqs:SendMessage"}
    roles = [name for name, resource in as_deployed["Resources"].items() if resource["Type"] == "AWS::IAM::Role"]
    assert roles == ["WorkerRole"]


def test_the_queue_hides_a_message_for_six_time_outs(template: Template) -> None:
    """Shorter, a message comes back while its invocation still runs; every allowed time-out has its entry.

    One worker killed, and its message hidden for that long, is no alarm; two are.
    """
    allowed = template["Parameters"]["WorkerTimeoutSeconds"]["AllowedValues"]

    assert set(allowed) == set(template["Mappings"]["ByWorkerTimeout"])
    for seconds in allowed:
        queue = properties(template, "SuperstepQueue", WorkerTimeoutSeconds=seconds)
        function = properties(template, "WorkerFunction", WorkerTimeoutSeconds=seconds)
        alarm = properties(template, "MessageAgeAlarm", WorkerTimeoutSeconds=seconds)
        assert queue["VisibilityTimeout"] == 6 * int(function["Timeout"]) <= 43200
        assert alarm["Threshold"] == 2 * queue["VisibilityTimeout"] + int(function["Timeout"])


def test_a_message_that_keeps_failing_ends_in_the_dead_letter_queue(template: Template) -> None:
    """After five deliveries or more, and it stays there longer than it could have lived in the queue."""
    queue, dead = properties(template, "SuperstepQueue"), properties(template, "DeadLetterQueue")

    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
    assert int(queue["RedrivePolicy"]["maxReceiveCount"]) >= 5
    assert template["Parameters"]["MaxDeliveries"]["MinValue"] >= 5
    assert dead["MessageRetentionPeriod"] > queue["MessageRetentionPeriod"]
    assert queue["SqsManagedSseEnabled"] is dead["SqsManagedSseEnabled"] is True


def test_one_failed_record_does_not_repeat_its_batch(as_deployed: Template) -> None:
    """Lambda is told to read the partial batch response, and how many workers may run."""
    source = properties(as_deployed, "WorkerFunctionSuperstep")

    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert source["EventSourceArn"] == f"arn:aws:sqs:{REGION}:{ACCOUNT}:steps"
    assert source["BatchSize"] == "1"
    assert source["ScalingConfig"] == {"MaximumConcurrency": "50"}


def test_the_function_is_the_packaged_worker_and_knows_where_everything_is(template: Template) -> None:
    """The zip of `make package`, its handler, and the variables that the library and the handler read."""
    function = properties(template, "WorkerFunction")

    assert function["CodeUri"] == "build/worker.zip"
    assert function["Handler"] == "app.handler"
    assert function["Environment"]["Variables"] == {
        "S3_CHECKPOINT_BUCKET": "my-bucket",
        "S3_CHECKPOINT_PREFIX": "checkpoints",
        "S3_CHECKPOINT_EXPECTED_BUCKET_OWNER": ACCOUNT,
        "S3_CHECKPOINT_QUEUE_URL": "steps",
        "S3_CHECKPOINT_TRANSPORT": "aiobotocore",
    }


ALARMS = {
    "DeadLettersAlarm": ("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", "dead", 0),
    "MessageAgeAlarm": ("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "steps", 780),
    "FunctionErrorsAlarm": ("AWS/Lambda", "Errors", "FunctionName", "worker", 0),
    "FunctionThrottlesAlarm": ("AWS/Lambda", "Throttles", "FunctionName", "worker", 0),
    "RecursiveLoopAlarm": ("AWS/Lambda", "RecursiveInvocationsDropped", "FunctionName", "worker", 0),
    "StoppedRunsAlarm": (f"s3-checkpoint/{STACK}", "StoppedRuns", None, None, 0),
}


@pytest.mark.parametrize("name", ALARMS)
def test_a_person_is_told_of_what_stops_runs(name: str, template: Template) -> None:
    """Each alarm watches its metric, and notifies the topic given, or else the stack's own."""
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:oncall"
    namespace, metric, dimension, value, threshold = ALARMS[name]

    alarm = properties(template, name, AlarmTopicArn=topic)

    assert (alarm["Namespace"], alarm["MetricName"], alarm["Threshold"]) == (namespace, metric, threshold)
    assert alarm.get("Dimensions", []) == ([{"Name": dimension, "Value": value}] if dimension else [])
    assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("GreaterThanThreshold", "notBreaching")
    assert alarm["AlarmActions"] == [topic]
    assert properties(template, name)["AlarmActions"] == ["<AlarmTopic>"]
    made = {name for name, resource in template["Resources"].items() if resource["Type"] == "AWS::CloudWatch::Alarm"}
    assert made == set(ALARMS)


def test_the_alarm_topic_can_be_subscribed(template: Template) -> None:
    """By mail through a parameter, whichever topic it is; by anything else through the output."""
    topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:oncall"
    resources = template["Resources"]

    own = properties(template, "AlarmSubscription", AlarmEmail="oncall@example.com")
    given = properties(template, "AlarmSubscription", AlarmEmail="oncall@example.com", AlarmTopicArn=topic)

    assert own == {"TopicArn": "<AlarmTopic>", "Protocol": "email", "Endpoint": "oncall@example.com"}
    assert given["TopicArn"] == topic
    assert resources["AlarmTopic"]["Condition"] == "MakesAlarmTopic"
    assert resources["AlarmSubscription"]["Condition"] == "MailsAlarms"
    assert "KmsMasterKeyId" not in resources["AlarmTopic"].get("Properties", {})  # CloudWatch could not publish
    assert "AlarmTopicArn" in template["Outputs"]
    pattern = re.compile(template["Parameters"]["AlarmEmail"]["AllowedPattern"])
    assert pattern.search("oncall@example.com")
    assert not pattern.search("oncall")


def test_runs_that_the_handler_drops_are_counted_from_its_log(template: Template) -> None:
    """By the outcomes that the handler itself writes."""
    found = properties(template, "StoppedRunsFilter")
    (metric,) = found["MetricTransformations"]

    assert found["LogGroupName"] == "<WorkerLogGroup>"
    assert re.findall(r'\$\.outcome = "(\w+)"', found["FilterPattern"]) == ["stopped", "gone"]
    assert (metric["MetricNamespace"], metric["MetricName"]) == (f"s3-checkpoint/{STACK}", "StoppedRuns")
    handler = (INFRA.parent / "s3_checkpoint" / "aws_lambda.py").read_text()
    assert '"gone" if' in handler
    assert 'else "stopped"' in handler
    assert properties(template, "WorkerFunction")["LoggingConfig"]["LogFormat"] == "JSON"


def test_lambda_lets_the_loop_of_supersteps_continue(template: Template, as_deployed: Template) -> None:
    """Without it, every run longer than about 16 supersteps ends in the dead-letter queue; SAM passes it on."""
    assert properties(template, "WorkerFunction")["RecursiveLoop"] == "Allow"
    assert as_deployed["Resources"]["WorkerFunction"]["Properties"]["RecursiveLoop"] == "Allow"


def test_the_superstep_queue_alone_sends_its_dead_letters_to_the_dead_letter_queue(template: Template) -> None:
    """By its ARN, which is known before it is there because it has a name."""
    queue, dead = properties(template, "SuperstepQueue"), properties(template, "DeadLetterQueue")

    assert dead["RedriveAllowPolicy"] == {
        "redrivePermission": "byQueue",
        "sourceQueueArns": [f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue['QueueName']}"],
    }
    assert queue["QueueName"] == f"{STACK}-supersteps"


def test_messages_are_encrypted_with_the_key_of_the_bucket(template: Template) -> None:
    """They can hold a state. Without a key of one's own, SQS has one; the worker may use it through SQS only."""
    for name in ("SuperstepQueue", "DeadLetterQueue"):
        plain, keyed = properties(template, name), properties(template, name, KmsKeyArn=KEY_ARN)
        assert (plain["SqsManagedSseEnabled"], plain.get("KmsMasterKeyId")) == (True, None)
        assert (keyed.get("SqsManagedSseEnabled"), keyed["KmsMasterKeyId"]) == (None, KEY_ARN)
    role = properties(template, "WorkerRole", KmsKeyArn=KEY_ARN)
    uses = [statement for statement in statements(role) if statement["Resource"] == KEY_ARN]
    via = [statement["Condition"]["StringEquals"]["kms:ViaService"] for statement in uses]
    assert via == [f"s3.{REGION}.amazonaws.com", f"sqs.{REGION}.amazonaws.com"]
    assert "QueueKey" not in [statement.get("Sid") for statement in statements(properties(template, "WorkerRole"))]


def test_queues_are_reached_over_tls_only(template: Template) -> None:
    """As the bucket is."""
    (statement,) = properties(template, "QueuesPolicy")["PolicyDocument"]["Statement"]

    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}" for name in ("steps", "dead")]


def test_the_prefix_cannot_hold_what_iam_gives_a_meaning_to(template: Template) -> None:
    """The templates put it into policies as it is."""
    pattern = re.compile(template["Parameters"]["Prefix"]["AllowedPattern"])

    assert all(pattern.search(good) for good in ("checkpoints", "team/app", "a", "v1.2_x-y"))
    assert not any(pattern.search(bad) for bad in ("", "*", "a*", "a?b", "${aws:username}", "/a", "a/", "a b", "é"))


def test_the_log_does_not_grow_for_ever(template: Template) -> None:
    """A log group that Lambda makes itself keeps everything, for ever."""
    assert properties(template, "WorkerLogGroup")["RetentionInDays"] == "30"
    assert properties(template, "WorkerFunction")["LoggingConfig"]["LogGroup"] == "<WorkerLogGroup>"


def test_the_costs_in_the_readme_add_up() -> None:
    """Each line's arithmetic gives its figure, and the figures give the total."""
    lines = re.findall(
        r"^\| ([^|*]+) \| ([0-9][^|]*) \| ([0-9.]+) \|$", (INFRA / "README.md").read_text(), re.MULTILINE
    )
    total = re.search(r"\| \*\*total\*\* \| \| \*\*([0-9.]+)\*\* \|", (INFRA / "README.md").read_text())

    assert len(lines) == 7
    for item, arithmetic, amount in lines:
        terms = re.sub(r"\b(GB|s)\b", "", arithmetic).replace(",", "").split("×")
        product = 1.0
        for term in terms:
            numerator, *denominators = (float(number) for number in term.split("/"))
            for denominator in denominators:
                numerator /= denominator
            product *= numerator
        assert round(product, 2) == float(amount), item
    assert total is not None
    assert round(sum(float(amount) for _, _, amount in lines), 2) == float(total[1])


def test_the_readmes_message_starts_a_run() -> None:
    """It is one that the worker understands, with a state of its graph."""
    survey = runpy.run_path(str(INFRA / "worker" / "graph.py"), run_name="graph")["Survey"]
    (body,) = re.findall(r"--message-body '([^']+)'", (INFRA / "README.md").read_text())

    message = SuperstepMessage.model_validate_json(body)

    assert message.step is None
    assert survey.model_validate(message.initial) == survey()


def test_the_default_package_is_what_the_template_runs(template: Template) -> None:
    """Binary wheels fit one Python and one architecture."""
    packager = (INFRA / "package_worker.py").read_text()
    parameters = template["Parameters"]

    assert f'"--python", default="{parameters["Runtime"]["Default"].removeprefix("python")}"' in packager
    assert f'"--architecture", default="{parameters["Architecture"]["Default"]}"' in packager


def test_the_readme_names_only_parameters_that_exist(template: Template) -> None:
    """A parameter in a command is one of the template's."""
    readme = (INFRA / "README.md").read_text()
    named = set(re.findall(r"\b([A-Z][a-z][A-Za-z]+)=", readme))

    assert named >= {"RequireConditionalCommits", "ExpireTaggedRunsAfterDays", "WorkerTimeoutSeconds"}
    assert named <= set(template["Parameters"])
