"""The key grammar: what is where in the bucket. Pure; building and parsing side by side.

    [<prefix>/]runs/<run_id>/steps/<step>.json                   the state of a step
    [<prefix>/]runs/<run_id>/active/<step>.json                  active tasks written by `save_active`
    [<prefix>/]runs/<run_id>/active/<step>.<write_id>.json       active tasks of a committed step
    [<prefix>/]runs/<run_id>/pruned/<step>.json                  empty: the steps up to this one have been pruned
    [<prefix>/]runs/<run_id>/namespaces/<namespace>/steps|active|pruned/…   the same, for a subgraph
    [<prefix>/]runs/<run_id>/lease.json                          who works on the run, if leases are used

`run_id` is a canonical lower-case UUID. `step` is 0 … 2^64-1, zero-padded to 20 digits, so that S3's byte order is step
order. `namespace` is one percent-encoded segment, `/` and `.` included. Kinds of object never share a prefix.
`runs` is one of the families of `key_families`; `thread_keys` has the grammar of `threads`, the LangGraph saver's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from secrets import token_hex
from urllib.parse import quote, unquote
from uuid import UUID

from s3_checkpoint._format.key_families import RUNS
from s3_checkpoint.errors import InvalidArgumentError

STEP_DIGITS = 20
MAX_STEP = 2**64 - 1
MAX_KEY_BYTES = 1024
"""S3's own bound on a key, in UTF-8 bytes."""

_LONGEST_NAME = len(f"{MAX_STEP}.{'f' * 32}.json")
"""Of an object under a run, that of a snapshot of a commit."""
_STEP_KEY = re.compile(rf"([0-9]{{{STEP_DIGITS}}})\.json")
_ACTIVE_KEY = re.compile(rf"([0-9]{{{STEP_DIGITS}}})(?:\.([0-9A-Za-z_-]{{1,64}}))?\.json")
_WRITE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def check_run_id(run_id: UUID | str) -> UUID:
    """The run id as a `UUID`. Text must be a UUID in canonical form, in either case.

    Raises `InvalidArgumentError` for anything else, braces and URNs included: two spellings of a key are two keys. It
    names what makes a run id of another name: the same one each time, so that runs can be resumed by that name.
    """
    if isinstance(run_id, UUID):
        return run_id
    if isinstance(run_id, str):
        try:
            parsed = UUID(run_id)
        except ValueError:
            pass
        else:
            if str(parsed) == run_id.lower():
                return parsed
    raise InvalidArgumentError(
        "run_id",
        repr(run_id)[:80],
        "must be a UUID, or its text in canonical form; "
        'of a name, uuid5(NAMESPACE_URL, "my-run") makes one, and of a ULID, ulid.to_uuid()',
    )


def check_step(step: int) -> int:
    """The step, if it is an `int` of 0 … 2^64-1; `InvalidArgumentError` otherwise (True and "3" included)."""
    if type(step) is not int or not 0 <= step <= MAX_STEP:
        raise InvalidArgumentError("step", repr(step)[:80], "must be an int of 0 … 2^64-1")
    return step


def encode_segment(text: str) -> str:
    """`text` as one key segment: everything percent-encoded that could end, leave or alias the segment."""
    try:
        return quote(text, safe="").replace(".", "%2E").replace("~", "%7E")
    except UnicodeEncodeError:
        raise InvalidArgumentError("namespace", ascii(text)[:80], "must be text without lone surrogates") from None


def decode_segment(segment: str) -> str | None:
    """The text that `encode_segment` made this segment of; None if it made it of none."""
    try:
        text = unquote(segment, errors="strict")
        return text if encode_segment(text) == segment else None
    except (UnicodeDecodeError, InvalidArgumentError):
        return None


def join_prefix(prefix: str) -> str:
    """The user's prefix as keys begin with it: no slash in front, one behind, or nothing."""
    stripped = prefix.strip("/")
    return f"{stripped}/" if stripped else ""


def runs_prefix(prefix: str) -> str:
    """Where the runs are; listing it with the delimiter `/` gives one common prefix per run."""
    return f"{join_prefix(prefix)}{RUNS}/"


def parse_run_prefix(prefix: str, common_prefix: str) -> UUID | None:
    """The run a common prefix under `runs_prefix` belongs to; None for anything that is not a run."""
    head = runs_prefix(prefix)
    if not (common_prefix.startswith(head) and common_prefix.endswith("/")):
        return None
    text = common_prefix[len(head) : -1]
    try:
        run_id = UUID(text)
    except ValueError:
        return None
    return run_id if str(run_id) == text else None


def new_write_id() -> str:
    """A write id that nobody else has: 128 random bits, as 32 hexadecimal digits."""
    return token_hex(16)


def is_write_id(text: str) -> bool:
    """Whether `text` can be a write id, that is, a part of a key."""
    return _WRITE_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run (and namespace) under one prefix."""

    prefix: str
    run_id: UUID
    namespace: str = ""

    run: str = field(init=False, repr=False, compare=False)
    """Everything of this run, whatever its namespaces, begins with this."""
    root: str = field(init=False, repr=False, compare=False)
    """What belongs to this namespace alone begins with this."""
    steps: str = field(init=False, repr=False, compare=False)
    """The states of this namespace are under this, and nothing else."""
    actives: str = field(init=False, repr=False, compare=False)
    """The active snapshots of this namespace are under this, and nothing else."""
    floors: str = field(init=False, repr=False, compare=False)
    """The markers of how far this namespace has been pruned are under this, and nothing else."""

    def __post_init__(self) -> None:
        run = f"{runs_prefix(self.prefix)}{self.run_id}/"
        root = f"{run}namespaces/{encode_segment(self.namespace)}/" if self.namespace else run
        object.__setattr__(self, "run", run)
        object.__setattr__(self, "root", root)
        for name, folder in (("steps", "steps"), ("actives", "active"), ("floors", "pruned")):
            object.__setattr__(self, name, f"{root}{folder}/")
        longest = len(self.actives.encode()) + _LONGEST_NAME
        if longest > MAX_KEY_BYTES:
            raise InvalidArgumentError(
                "prefix and namespace",
                ascii(self.prefix + " " + self.namespace)[:80],
                f"make keys of {longest} bytes; S3 takes {MAX_KEY_BYTES}",
            )

    @property
    def namespaces(self) -> str:
        """The namespaces of the run are under this."""
        return f"{self.run}namespaces/"

    @property
    def lease(self) -> str:
        """The lease on the run, whatever its namespaces."""
        return f"{self.run}lease.json"

    def state(self, step: int) -> str:
        """The state object of `step`."""
        return f"{self.steps}{step:0{STEP_DIGITS}d}.json"

    def active(self, step: int) -> str:
        """The snapshot that `save_active` writes for `step`."""
        return f"{self.actives}{step:0{STEP_DIGITS}d}.json"

    def committed_active(self, step: int, write_id: str) -> str:
        """The snapshot that the commit `write_id` wrote for `step`."""
        return f"{self.actives}{step:0{STEP_DIGITS}d}.{write_id}.json"

    def floor(self, step: int) -> str:
        """The marker that says that steps up to `step` have been pruned."""
        return f"{self.floors}{step:0{STEP_DIGITS}d}.json"

    def parse_floor(self, key: str) -> int | None:
        """The step that the marker at `key` names; None if `key` is no marker of this namespace."""
        return parse_step_name(key[len(self.floors) :]) if key.startswith(self.floors) else None

    def of_namespace(self, key: str) -> RunKeys | None:
        """The keys of the namespace that `key`, an object of this run, belongs to; None if it belongs to none."""
        if not key.startswith(self.namespaces):
            return run_keys(self.prefix, self.run_id)
        name = decode_segment(key[len(self.namespaces) :].partition("/")[0])
        return run_keys(self.prefix, self.run_id, name) if name else None

    def parse_state(self, key: str) -> int | None:
        """The step whose state is at `key`; None if `key` is not a state of this namespace."""
        return parse_step_name(key[len(self.steps) :]) if key.startswith(self.steps) else None

    def parse_active(self, key: str) -> tuple[int, str | None] | None:
        """Step and write id (None: by `save_active`) of the snapshot at `key`; None if it is none of ours."""
        if not key.startswith(self.actives):
            return None
        match = _ACTIVE_KEY.fullmatch(key, len(self.actives))
        if match is None or int(match[1]) > MAX_STEP:
            return None
        return int(match[1]), match[2]


run_keys = lru_cache(maxsize=1024)(RunKeys)
"""`RunKeys(…)`, for the run that is asked about again and again made once."""


def parse_step_name(name: str) -> int | None:
    """The step of a name such as `00000000000000000007.json`; None if it is not one."""
    match = _STEP_KEY.fullmatch(name)
    return int(match[1]) if match and int(match[1]) <= MAX_STEP else None
