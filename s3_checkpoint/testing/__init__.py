"""For tests of applications, of object stores and of checkpointers: what this library's own tests use:

    local_s3                                  an S3 on loopback, as a context manager
    Outage, AnswerLost, CrashAfter, …         faults, as wrappers around any object store
    Counting                                  what calls cost: requests and round trips
    contracts.ObjectStoreContract             test classes to inherit from, for a store or a checkpointer of one's own
    contracts.CheckpointerContract

`contracts` needs pytest, and `local_s3` moto's server; both come with the extra `testing`.
"""

from s3_checkpoint.testing.counting import Counting
from s3_checkpoint.testing.faults import (
    AnswerLost,
    Conflict409,
    CorruptBody,
    Crash,
    CrashAfter,
    CrashBefore,
    Denied,
    ListedButGone,
    Outage,
    Slow,
    SlowDown503,
    Unanswered,
    state_put,
)
from s3_checkpoint.testing.local_s3 import LocalS3, local_s3
from s3_checkpoint.testing.wrappers import (
    EVERY,
    Aim,
    PrefixedStore,
    Request,
    Send,
    SmallPages,
    StoreWrapper,
    Verb,
)

__all__ = [
    "EVERY",
    "Aim",
    "AnswerLost",
    "Conflict409",
    "CorruptBody",
    "Counting",
    "Crash",
    "CrashAfter",
    "CrashBefore",
    "Denied",
    "ListedButGone",
    "LocalS3",
    "Outage",
    "PrefixedStore",
    "Request",
    "Send",
    "Slow",
    "SlowDown503",
    "SmallPages",
    "StoreWrapper",
    "Unanswered",
    "Verb",
    "local_s3",
    "state_put",
]
