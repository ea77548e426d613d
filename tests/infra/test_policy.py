"""The policies: what they say, that the files in infra/ say the same, and that they decide as they read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from s3_checkpoint._format.key_families import KEY_FAMILIES, SESSIONS
from s3_checkpoint._format.keys import MAX_STEP, RunKeys
from s3_checkpoint._format.memory_keys import item_key
from s3_checkpoint._format.thread_keys import ThreadKeys, run_prefix
from s3_checkpoint.cli.app import build
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.policy import ROLES, Role, iam_policy
from tests.infra.iam_rules import is_allowed

POLICIES = Path(__file__).parents[2] / "infra" / "policies"
KEY_ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
RUN_ID = UUID("6b1f8f6e-0c43-4cf0-9f0e-1d5a6b7c8d9e")
RUN = f"runs/{RUN_ID}/"

GRANTS: dict[str, set[str]] = {
    "worker": {"s3:GetObject", "s3:PutObject"},
    "reader": {"s3:GetObject"},
    "janitor": {"s3:GetObject", "s3:DeleteObject"},
}
OBJECT_ACTIONS = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectAcl"]


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(build(), ["policy", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def statement(policy: dict[str, Any], sid: str) -> dict[str, Any]:
    (found,) = [s for s in policy["Statement"] if s["Sid"] == sid]
    return dict(found)


@pytest.mark.parametrize("role", ROLES)
def test_the_files_are_what_the_command_prints(role: Role) -> None:
    """infra/policies/ is generated, not edited by hand."""
    output = printed(role, "--bucket", "my-bucket", "--prefix", "checkpoints")

    assert (POLICIES / f"{role}.json").read_text() == output
    assert json.loads(output) == iam_policy(role, "my-bucket", "checkpoints")


def test_there_is_a_file_for_each_role_and_no_other() -> None:
    """A role without a file, or a file without a role, is an oversight."""
    assert {path.stem for path in POLICIES.iterdir()} == set(ROLES)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", OBJECT_ACTIONS)
def test_a_role_may_do_on_its_objects_what_it_needs_and_nothing_else(role: Role, action: str) -> None:
    """No role can delete versions or change access; only the worker writes, only the janitor deletes."""
    policy = iam_policy(role, "my-bucket", "team/app")

    for kind in (RUN, ThreadKeys.of("", "t").root, run_prefix("", "r"), "sessions/s/"):
        resource = f"arn:aws:s3:::my-bucket/team/app/{kind}anything"
        assert is_allowed(action, resource, {}, identity=[policy]) == (action in GRANTS[role])


def test_the_janitor_may_mark_large_values_and_put_nothing_else() -> None:
    """A LangGraph thread's value is marked as unused by a copy onto itself, before it is removed."""
    policy = iam_policy("janitor", "my-bucket", "team/app")
    namespace = ThreadKeys.of("team/app", "t").namespace("inner|child")

    def may_put(key: str) -> bool:
        return is_allowed("s3:PutObject", f"arn:aws:s3:::my-bucket/{key}", {}, identity=[policy])

    assert may_put(namespace.value("0" * 32))
    assert not may_put(f"{namespace.directory('id')}c.-")
    assert not may_put(namespace.run("0" * 24))
    assert not may_put("team/other/threads/t/!/values/0")


def may_put(role: Role, key: str) -> bool:
    policy = iam_policy(role, "my-bucket", "team/app")
    return is_allowed("s3:PutObject", f"arn:aws:s3:::my-bucket/{key}", {}, identity=[policy])


SEGMENTS = st.sampled_from(["", "pruned", "steps", "active", "values", "namespaces", "!", "a/b", "00", "1"]) | st.text(
    max_size=5
)


@given(namespace=SEGMENTS, step=st.integers(0, MAX_STEP))
@example(namespace="pruned", step=0)
@example(namespace="steps", step=MAX_STEP)
@settings(deadline=None)
def test_the_janitor_may_write_how_far_a_run_is_pruned_and_no_step(namespace: str, step: int) -> None:
    """IAM's `*` matches slashes: a subgraph whose name is that of a folder opens nothing."""
    keys = RunKeys("team/app", RUN_ID, namespace)

    assert may_put("janitor", f"{keys.root}pruned/{step:020d}.json")
    assert not may_put("janitor", keys.state(step))
    assert not may_put("janitor", keys.active(step))
    assert not may_put("janitor", keys.committed_active(step, "0" * 32))
    assert not may_put("janitor", f"{keys.run}lease.json")
    assert not may_put("reader", f"{keys.root}pruned/{step:020d}.json")
    assert not may_put("janitor", f"team/other/{keys.root}pruned/{step:020d}.json")


@given(thread=SEGMENTS, namespace=SEGMENTS)
@example(thread="values", namespace="values")
@example(thread="t", namespace="values")
@settings(deadline=None)
def test_the_janitor_may_mark_large_values_of_threads_and_write_no_checkpoint(thread: str, namespace: str) -> None:
    """A value is marked by a copy onto itself before it is removed; a namespace named `values` opens nothing."""
    keys = ThreadKeys.of("team/app", thread).namespace(namespace)

    assert may_put("janitor", keys.value("0" * 32))
    for name in ("c.-", "d.-", "w.task.r000001"):
        assert not may_put("janitor", f"{keys.directory('id')}{name}")
    assert not may_put("reader", keys.value("0" * 32))


def texts_of(*folders: str) -> list[Path]:
    """The files that people and AWS read, and the code."""
    top = Path(__file__).parents[2]
    files = [path for folder in folders for path in (top / folder).rglob("*")] + [top / "README.md"]
    kinds = {".md", ".py", ".json", ".yaml", ".yml"}
    return [
        path for path in files if path.suffix in kinds and not {"build", "_build"} & set(path.relative_to(top).parts)
    ]


def test_key_families_are_written_down_once() -> None:
    """Policies, templates and pages grant and name the families there are, all of them, and none that is gone.

    `thread-runs/*` was granted in seven places, long after the last key of that family had been written.
    """
    granted = re.compile(r"(?:checkpoints|\$\{Prefix\}|<prefix>)/([a-z-]+)/\*(?![/\w])")
    top = Path(__file__).parents[2]
    texts = {str(path.relative_to(top)): path.read_text() for path in texts_of("docs", "infra", "s3_checkpoint")}

    found = {name: families for name, text in texts.items() if (families := set(granted.findall(text)))}

    pages = ("docs/guides/security-and-iam.md", "infra/README.md", "infra/template.yaml")
    for name in (*pages, *(f"infra/policies/{role}.json" for role in ROLES)):
        assert found[name] >= set(KEY_FAMILIES), name
    assert {family for families in found.values() for family in families} == set(KEY_FAMILIES)
    assert not [name for name, text in texts.items() if "thread-runs" in text]


def test_every_key_belongs_to_a_family() -> None:
    """What the grammars build is what the policies grant."""
    built = [RunKeys("", RUN_ID).state(0), ThreadKeys.of("", "t").namespace("").value("0" * 32), run_prefix("", "r")]
    built.append(item_key("", ("users",), "prefs"))

    assert {key.partition("/")[0] for key in built} == set(KEY_FAMILIES) - {SESSIONS}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "elsewhere",
    [
        "my-bucket/team/apple/runs/x",
        "my-bucket/team/runs/x",
        "my-bucket/runs/x",
        "my-bucket/team/app/other/x",
        "my-bucket/team/app/runs",
        "my-bucket-2/team/app/runs/x",
        "my-bucket/x/team/app/runs/x",
    ],
)
def test_nothing_is_granted_outside_the_prefix(role: Role, elsewhere: str) -> None:
    """Neither a sibling prefix, nor one above, nor another bucket."""
    policy = iam_policy(role, "my-bucket", "team/app")

    assert not any(is_allowed(a, f"arn:aws:s3:::{elsewhere}", {}, identity=[policy]) for a in OBJECT_ACTIONS)


@pytest.mark.parametrize("role", ROLES)
def test_listing_needs_a_prefix_inside_ours(role: Role) -> None:
    """A listing without a prefix would tell the keys of everybody else in the bucket."""
    policy = iam_policy(role, "my-bucket", "team/app")

    def may_list(context: dict[str, str], bucket: str = "my-bucket") -> bool:
        return is_allowed("s3:ListBucket", f"arn:aws:s3:::{bucket}", context, identity=[policy])

    assert may_list({"s3:prefix": "team/app/runs/"})
    assert may_list({"s3:prefix": f"team/app/{RUN}steps/"})
    assert may_list({"s3:prefix": "team/app/threads/t/"})
    assert may_list({"s3:prefix": "team/app/sessions/s/"})
    assert not may_list({})
    assert not may_list({"s3:prefix": ""})
    assert not may_list({"s3:prefix": "team/"})
    assert not may_list({"s3:prefix": "team/apple/runs/"})
    assert not may_list({"s3:prefix": "team/app/runs/"}, bucket="other")


@given(prefix=st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=30))
def test_a_prefix_is_taken_literally(prefix: str) -> None:
    """Characters that IAM gives a meaning to match themselves: `a*` does not open `ab`."""
    policy = iam_policy("worker", "my-bucket", prefix)
    inside = prefix.strip("/")
    head = f"{inside}/" if inside else ""

    def may_put(key: str) -> bool:
        return is_allowed("s3:PutObject", f"arn:aws:s3:::my-bucket/{key}", {}, identity=[policy])

    assert may_put(f"{head}runs/x")
    assert is_allowed("s3:ListBucket", "arn:aws:s3:::my-bucket", {"s3:prefix": f"{head}runs/x"}, identity=[policy])
    for special in "*?$":
        if special in head:
            assert not may_put(f"{head.replace(special, 'zz')}runs/x")


def test_a_key_is_used_only_through_s3_in_its_own_region() -> None:
    """Credentials of a worker decrypt nothing but what they read from S3."""
    key = statement(iam_policy("worker", "my-bucket", kms_key_arn=KEY_ARN), "CheckpointKey")

    assert key["Resource"] == KEY_ARN
    assert key["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"]
    assert key["Condition"] == {"StringEquals": {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}}


def test_those_who_do_not_write_cannot_encrypt() -> None:
    """Reading takes kms:Decrypt and no more; the janitor's marks are encrypted as everything else."""
    actions = {
        role: statement(iam_policy(role, "my-bucket", kms_key_arn=KEY_ARN), "CheckpointKey")["Action"] for role in ROLES
    }

    assert actions["reader"] == ["kms:Decrypt"]
    assert actions["worker"] == actions["janitor"] == ["kms:Decrypt", "kms:GenerateDataKey"]


def test_tags_are_granted_on_what_a_role_writes_and_only_when_asked() -> None:
    """Tags can decide what a lifecycle rule deletes."""
    tagging = {"s3:GetObjectTagging", "s3:PutObjectTagging"}

    assert tagging <= set(statement(iam_policy("worker", "b-1", object_tags=True), "CheckpointObjects")["Action"])
    assert not tagging & set(statement(iam_policy("worker", "b-1"), "CheckpointObjects")["Action"])
    for role in ("reader", "janitor"):
        assert not tagging & set(statement(iam_policy(role, "b-1", object_tags=True), "CheckpointObjects")["Action"])
    assert tagging <= set(statement(iam_policy("janitor", "b-1", object_tags=True), "MarkRemovals")["Action"])
    assert not tagging & set(statement(iam_policy("janitor", "b-1"), "MarkRemovals")["Action"])


def test_a_bucket_of_the_same_name_in_another_account_is_refused() -> None:
    """`bucket_owner` holds every S3 statement to the account."""
    policy = iam_policy("worker", "my-bucket", bucket_owner="111122223333")

    def may(action: str, resource: str, account: str) -> bool:
        context = {"aws:ResourceAccount": account, "s3:prefix": "runs/"}
        return is_allowed(action, resource, context, identity=[policy])

    for action, resource in [
        ("s3:PutObject", "arn:aws:s3:::my-bucket/runs/x"),
        ("s3:ListBucket", "arn:aws:s3:::my-bucket"),
    ]:
        assert may(action, resource, "111122223333")
        assert not may(action, resource, "999999999999")


def test_an_access_point_is_granted_as_such() -> None:
    """Objects behind an access point are under `…/object/`."""
    arn = "arn:aws-us-gov:s3:us-gov-west-1:111122223333:accesspoint/checkpoints"
    policy = iam_policy("reader", arn, "p")

    assert statement(policy, "ListCheckpoints")["Resource"] == arn
    assert statement(policy, "CheckpointObjects")["Resource"] == [
        f"{arn}/object/p/{family}/*" for family in KEY_FAMILIES
    ]


def test_other_partitions_have_other_arns() -> None:
    """China and GovCloud."""
    key = "arn:aws-cn:kms:cn-north-1:111122223333:key/abc"
    policy = iam_policy("reader", "my-bucket", partition="aws-cn", kms_key_arn=key)

    assert statement(policy, "ListCheckpoints")["Resource"] == "arn:aws-cn:s3:::my-bucket"
    assert statement(policy, "CheckpointKey")["Condition"] == {
        "StringEquals": {"kms:ViaService": "s3.cn-north-1.amazonaws.com.cn"}
    }


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("role", {"role": "owner"}),
        ("bucket", {"bucket": "*"}),
        ("bucket", {"bucket": "my-bucket/prefix"}),
        ("bucket", {"bucket": "my-bucket\n"}),
        ("bucket", {"bucket": "my-bucket--use1-az4--x-s3"}),
        ("bucket", {"bucket": "reports--use1-az4--xa-s3"}),
        ("prefix", {"prefix": "日本"}),
        ("prefix", {"prefix": "a\nb"}),
        ("kms_key_arn", {"kms_key_arn": "alias/mine"}),
        ("kms_key_arn", {"kms_key_arn": "arn:aws:kms:eu-west-1:111122223333:alias/mine"}),
        ("bucket_owner", {"bucket_owner": "1234"}),
        ("partition", {"partition": "*"}),
    ],
)
def test_a_grant_that_cannot_be_exact_is_refused(argument: str, values: dict[str, str]) -> None:
    """A policy that would mean more than it says is not made."""
    with pytest.raises(InvalidArgumentError) as refused:
        iam_policy(**{"role": "worker", "bucket": "my-bucket", **values})  # type: ignore[arg-type]

    assert refused.value.argument == argument


@pytest.mark.parametrize("role", ROLES)
def test_cfn_lint_knows_every_action_and_condition(role: Role) -> None:
    """The documents are valid IAM policies, with every option."""
    from cfnlint.api import lint

    document = iam_policy(role, "my-bucket", "a*b", kms_key_arn=KEY_ARN, object_tags=True, bucket_owner="111122223333")

    def findings(policy: dict[str, Any]) -> list[str]:
        resource = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
        return [match.message for match in lint(json.dumps({"Resources": {"Policy": resource}}))]

    assert findings(document) == []
    assert findings(json.loads(json.dumps(document).replace('s3:GetObject"', 's3:GetObjects"'))) != []


def test_the_command_takes_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose settings name a key and an owner gets a policy for that key and owner."""
    monkeypatch.setenv("S3_CHECKPOINT_BUCKET", "my-bucket")
    monkeypatch.setenv("S3_CHECKPOINT_KMS_KEY_ID", KEY_ARN)
    monkeypatch.setenv("S3_CHECKPOINT_EXPECTED_BUCKET_OWNER", "111122223333")

    assert json.loads(printed("worker")) == iam_policy(
        "worker", "my-bucket", kms_key_arn=KEY_ARN, bucket_owner="111122223333"
    )


@pytest.mark.parametrize("role", ROLES)
def test_a_compatible_store_changes_the_janitors_policy_only(role: Role) -> None:
    """With an endpoint of its own the store may check a batch delete against the bucket; on AWS nothing is added."""
    added = [
        s
        for s in json.loads(printed(role, "--bucket", "my-bucket", "--endpoint-url", "http://127.0.0.1:1"))["Statement"]
        if s not in json.loads(printed(role, "--bucket", "my-bucket"))["Statement"]
    ]

    batch = {"Sid": "BatchDelete", "Effect": "Allow", "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::my-bucket"}
    assert added == ([batch] if role == "janitor" else [])
    policy = iam_policy(role, "my-bucket", "p", compatible_store=True)
    assert not is_allowed("s3:DeleteObject", "arn:aws:s3:::my-bucket/other/runs/x", {}, identity=[policy])


def test_the_command_says_what_is_wrong_and_prints_no_policy() -> None:
    """A wrong argument ends with exit code 2, its reason on stderr and nothing on stdout."""
    result = CliRunner().invoke(build(), ["policy", "worker", "--bucket", "my-bucket", "--kms-key", "alias/mine"])

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "kms_key_arn must be the ARN of a key" in result.stderr
