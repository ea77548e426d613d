"""The key grammar of Claude Agent SDK sessions. Pure; build and parse are side by side.

    [<prefix>/]sessions/<project>/main/<session>/parts/<number>.jsonl            one append to the session's transcript
    [<prefix>/]sessions/<project>/main/<session>/merged/<first>-<last>.jsonl     the parts of these numbers, again
    [<prefix>/]sessions/<project>/sub/<session>/<subpath>/parts|merged/…         the same for a subagent
    [<prefix>/]sessions/clock.json                                               the store's time, without a Date

`project`, `session` and `subpath` are percent-encoded, `/` and `.` included. `number` is zero-padded to 12 digits, so
that S3's byte order is the order of appends. An **empty** part ends what is before it: the transcript was removed up to
there. A listing of `<project>/main/` shows all sessions of a project and nothing of their subagents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from s3_checkpoint._format.key_families import SESSIONS
from s3_checkpoint._format.keys import MAX_KEY_BYTES, decode_segment, encode_segment, join_prefix
from s3_checkpoint.errors import InvalidArgumentError

NUMBER_DIGITS = 12
MAX_NUMBER = 10**NUMBER_DIGITS - 1
_MAIN, _SUB = "main", "sub"
_PART = re.compile(rf"([0-9]{{{NUMBER_DIGITS}}})\.jsonl")
_MERGED = re.compile(rf"([0-9]{{{NUMBER_DIGITS}}})-([0-9]{{{NUMBER_DIGITS}}})\.jsonl")
_LONGEST_NAME = len("merged/") + 2 * NUMBER_DIGITS + len("-.jsonl")


@dataclass(frozen=True, slots=True)
class Transcript:
    """One transcript: of a session, or with `subpath` of one of its subagents."""

    prefix: str
    project_key: str
    session_id: str
    subpath: str | None = None

    @classmethod
    def checked(cls, prefix: str, project_key: object, session_id: object, subpath: object = None) -> Transcript:
        """The transcript; `InvalidArgumentError` for a name that is empty or no text, or makes keys too long for S3."""
        names = {"project_key": project_key, "session_id": session_id}
        if subpath is not None:
            names["subpath"] = subpath
        for name, value in names.items():
            if not isinstance(value, str) or not value:
                raise InvalidArgumentError(name, ascii(value)[:80], "must be text, and not empty")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidArgumentError(name, ascii(value)[:80], "must be text without lone surrogates") from None
        found = cls(prefix, str(project_key), str(session_id), None if subpath is None else str(subpath))
        longest = len(found.root.encode()) + _LONGEST_NAME
        if longest > MAX_KEY_BYTES:
            reason = f"make keys of {longest} bytes; S3 takes {MAX_KEY_BYTES}"
            raise InvalidArgumentError("project_key, session_id and subpath", ascii(found.root)[:80], reason)
        return found

    @property
    def root(self) -> str:
        """Everything of this transcript begins with this."""
        if self.subpath is None:
            return f"{mains_prefix(self.prefix, self.project_key)}{encode_segment(self.session_id)}/"
        return f"{self.subs}{encode_segment(self.subpath)}/"

    @property
    def subs(self) -> str:
        """Everything of the session's subagents begins with this."""
        return f"{subs_prefix(self.prefix, self.project_key)}{encode_segment(self.session_id)}/"

    def part(self, number: int) -> str:
        """One append."""
        return f"{self.root}parts/{number:0{NUMBER_DIGITS}d}.jsonl"

    def merged(self, first: int, last: int) -> str:
        """Several appends in one object."""
        return f"{self.root}merged/{first:0{NUMBER_DIGITS}d}-{last:0{NUMBER_DIGITS}d}.jsonl"

    def parse(self, key: str) -> tuple[int, int, bool] | None:
        """First and last number of the object with this key, and whether it is merged; None for any other key."""
        if not key.startswith(self.root):
            return None
        kind, _, name = key[len(self.root) :].partition("/")
        if kind == "parts" and (match := _PART.fullmatch(name)):
            return int(match[1]), int(match[1]), False
        if kind == "merged" and (match := _MERGED.fullmatch(name)) and int(match[1]) < int(match[2]):
            return int(match[1]), int(match[2]), True
        return None


def sessions_prefix(prefix: str) -> str:
    """Listing this with the delimiter `/` gives one common prefix per project."""
    return f"{join_prefix(prefix)}{SESSIONS}/"


def clock_key(prefix: str) -> str:
    """An object that is written to see the store's time."""
    return f"{sessions_prefix(prefix)}clock.json"


def parse_project(prefix: str, common_prefix: str) -> str | None:
    """The project of a common prefix under `sessions_prefix`; None for anything else."""
    head = sessions_prefix(prefix)
    if not (common_prefix.startswith(head) and common_prefix.endswith("/")):
        return None
    return decode_segment(common_prefix[len(head) : -1]) or None


def mains_prefix(prefix: str, project_key: str) -> str:
    """The transcripts of all sessions of a project are under this, and nothing else."""
    return f"{sessions_prefix(prefix)}{encode_segment(project_key)}/{_MAIN}/"


def subs_prefix(prefix: str, project_key: str) -> str:
    """The transcripts of all subagents of a project are under this, and nothing else."""
    return f"{sessions_prefix(prefix)}{encode_segment(project_key)}/{_SUB}/"


def parse_transcript(prefix: str, project_key: str, key: str) -> Transcript | None:
    """The transcript that a key of the project belongs to; None if it belongs to none."""
    mains, subs = mains_prefix(prefix, project_key), subs_prefix(prefix, project_key)
    if key.startswith(mains):
        session = decode_segment(key[len(mains) :].partition("/")[0])
        found = Transcript(prefix, project_key, session) if session else None
    elif key.startswith(subs):
        segments = key[len(subs) :].split("/", 2)
        names = [decode_segment(segment) for segment in segments[:2]]
        found = Transcript(prefix, project_key, names[0], names[1]) if len(names) == 2 and all(names) else None  # type: ignore[arg-type]
    else:
        return None
    return found if found and found.parse(key) else None
