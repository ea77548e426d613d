"""What S3 takes in the place of a bucket's name. Pure.

    my-bucket                                            a general purpose bucket
    team--use1-az4--x-s3                                 a directory bucket (S3 Express One Zone)
    reports--use1-az4--xa-s3                             an access point of one
    reports-a1b2c3d4e5-s3alias                           the alias of an access point
    arn:aws:s3:eu-west-1:111122223333:accesspoint/reports    an access point; of several regions, an outpost, …

Source: "General purpose bucket naming rules", "Directory bucket naming rules" and "Access point aliases", Amazon S3
user guide; the forms of ARNs are those that botocore 1.40 sends (`VALID_S3_ARN` in `botocore.handlers`).
"""

from __future__ import annotations

import re

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DIRECTORY = re.compile(r"[a-z0-9][a-z0-9-]*--[a-z0-9-]+--xa?-s3")
_IP_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
_ARN = re.compile(
    r"arn:aws[a-z-]*:s3(-object-lambda)?:[a-z0-9-]*:[0-9]{12}:accesspoint[/:][A-Za-z0-9.-]{1,63}"
    r"|arn:aws[a-z-]*:s3-outposts:[a-z0-9-]+:[0-9]{12}:outpost[/:][A-Za-z0-9-]{1,63}[/:]accesspoint[/:][A-Za-z0-9-]{1,63}"
)
_BUCKET_ARN = re.compile(r"arn:aws[a-z-]*:s3:::([^/]+)")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = (".mrap", "--table-s3")


def is_directory_bucket(bucket: str) -> bool:
    """Whether it is a directory bucket, or an access point of one: their listings have no order."""
    return bucket.endswith(("--x-s3", "--xa-s3"))


def arn_in_front(text: str) -> str:
    """The ARN that `text` begins with, up to the end or a slash behind it; empty if there is none."""
    found = _ARN.match(text)
    return found[0] if found and text[found.end() :][:1] in ("", "/") else ""


def bucket_name_fault(bucket: str) -> str | None:
    """What is wrong with `bucket` as a bucket's name, as the end of a sentence; None for one that S3 takes."""
    if _ARN.fullmatch(bucket):
        return None
    if arn := _BUCKET_ARN.match(bucket):
        return f"must be the bucket's name, not its ARN: {arn[1]}"
    if bucket.startswith("arn:"):
        return "must be a bucket's name, or the ARN of an access point: arn:aws:s3:region:account:accesspoint/name"
    if bucket.lower().startswith("s3://"):
        return "must be the bucket's name alone; connect, S3Saver and S3Settings.from_url take an s3:// URL"
    if "://" in bucket:
        return "must be a bucket's name, not a URL; the address of a store that is not AWS is the `endpoint_url`"
    if "/" in bucket:
        return "must be a bucket's name, without slashes; keys in it begin with the `prefix`"
    if not 3 <= len(bucket) <= 63:
        return f"must be of 3 … 63 characters, and is of {len(bucket)}"
    if not _NAME.fullmatch(bucket):
        return "must be of lower-case letters, digits, dots and hyphens, with a letter or digit at both ends"
    if ".." in bucket:
        return "must not have two dots in a row"
    if _IP_ADDRESS.fullmatch(bucket):
        return "must not look like an IP address"
    return _reserved(bucket)


def _reserved(bucket: str) -> str | None:
    start = next((start for start in _RESERVED_STARTS if bucket.startswith(start)), None)
    if start is not None:
        return f"must not begin with {start}, which S3 keeps for itself"
    if bucket.endswith(_RESERVED_ENDS):
        return "is of a kind that holds no objects of ours; a multi-region access point is named by its ARN"
    if is_directory_bucket(bucket) and not _DIRECTORY.fullmatch(bucket):
        return "must read name--zone--x-s3, as S3 names directory buckets"
    return None
