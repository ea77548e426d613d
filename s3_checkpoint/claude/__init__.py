"""Sessions of the Claude Agent SDK in a bucket: `S3SessionStore`. Appending needs the extra `claude`."""

from s3_checkpoint.claude.session_calls import PrunedSessions, SessionInfo
from s3_checkpoint.claude.session_store import S3SessionStore, SyncS3SessionStore

__all__ = ["PrunedSessions", "S3SessionStore", "SessionInfo", "SyncS3SessionStore"]
