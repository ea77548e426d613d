"""Does a bucket honour what the library relies on? Each thing is a probe of its own; `examine` runs them all."""

from s3_checkpoint.doctor.examination import examine
from s3_checkpoint.doctor.findings import Finding, Status

__all__ = ["Finding", "Status", "examine"]
