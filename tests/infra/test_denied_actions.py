"""What a denied call tells to grant: the right that S3 names, else the one its operation is known to need."""

from __future__ import annotations

import pytest

from s3_checkpoint import AccessDeniedError, ConfigurationError, S3Settings
from s3_checkpoint._error_codes import error_for

USER = "User: arn:aws:iam::123456789012:user/worker is not authorized to perform: "


@pytest.mark.parametrize(
    ("operation", "message", "action"),
    [
        ("PutObject", "Access Denied", "s3:PutObject"),
        ("HeadObject", "", "s3:GetObject"),
        (
            "PutObject",
            f'{USER}s3:PutObjectTagging on resource: "arn:aws:s3:::b/k" because no identity-based policy allows it',
            "s3:PutObjectTagging",
        ),
        (
            "GetObject",
            f'{USER}s3:ListBucket on resource: "arn:aws:s3:::b" because no identity-based policy allows it',
            "s3:ListBucket",
        ),
        (
            "PutObject",
            f"{USER}kms:GenerateDataKey on resource: arn:aws:kms:eu-west-1:123456789012:key/1 because of a policy",
            "kms:GenerateDataKey",
        ),
        ("GetObject", "The key arn:aws:kms:eu-west-1:123456789012:key/1 is not accessible", "s3:GetObject"),
    ],
)
def test_the_action_is_the_one_that_is_missing(operation: str, message: str, action: str) -> None:
    """A right to the key or to tags is not granted by granting the operation."""
    error = error_for(operation, "b", "k", "AccessDenied", 403, message)

    assert isinstance(error, AccessDeniedError)
    assert error.action == action
    assert f"grant {action}" in str(error)


def test_object_tags_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a JSON object."""
    monkeypatch.setenv("S3_CHECKPOINT_OBJECT_TAGS", '{"team":"a"}')

    assert S3Settings(bucket="bucket").object_tags == {"team": "a"}


@pytest.mark.parametrize("tags", [{str(n): "" for n in range(11)}, {"": "a"}, {"a": "b" * 257}, {"a" * 129: ""}])
def test_tags_that_s3_would_refuse_are_refused_before(tags: dict[str, str]) -> None:
    """Ten tags; keys of 1 … 128 characters, values of up to 256."""
    with pytest.raises(ConfigurationError, match="object_tags"):
        S3Settings(bucket="bucket", object_tags=tags)
