"""The faults moved to `s3_checkpoint.testing`; this name goes when nothing imports it any more."""

from s3_checkpoint.testing import *  # noqa: F403
from s3_checkpoint.testing import StoreWrapper as Wrapper
from s3_checkpoint.testing.wrappers import T

__all__ = ["T", "Wrapper"]
