"""What is to happen to a run of the demonstration, and what has happened."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from s3_checkpoint.demo.graph import FAN_OUT, GROUPS


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker killed with SIGKILL: at work on `step`, `done` of whose tasks were done."""

    step: int
    worker: int
    pid: int
    node: str
    done: int
    tasks: int


@dataclass(slots=True)
class Tally:
    """What happened."""

    kills: list[Kill] = field(default_factory=list)
    workers: int = 0
    supersteps: int = 0
    """Commits, each of another step; that of the initial state is not counted."""
    deliveries: int = 0
    redeliveries: int = 0
    """Deliveries of a message that a worker had taken before and not finished in time: killed, or slow."""
    duplicates: int = 0
    """Messages sent a second time on purpose."""
    superseded: int = 0
    """Deliveries whose superstep another worker had committed, or was first to commit."""
    requests: list[int] = field(default_factory=list)
    """S3 requests of each committed superstep."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which supersteps are hit, and how."""

    last: int
    kills: dict[int, int]
    """Step: after how many of its tasks the worker is killed."""
    tasks: dict[int, int]
    """By counting step: how many tasks it has."""
    twice: frozenset[int]
    """Steps whose message is sent a second time while a worker is at it."""

    @classmethod
    def draw(cls, files: int, kills: int, seed: int) -> Plan:
        """A plan for so many files: at least one of the kills in the middle of a fan-out."""
        groups = min(GROUPS, files)
        rounds = math.ceil(groups / FAN_OUT)
        tasks = {2 + 2 * index: min(FAN_OUT, groups - index * FAN_OUT) for index in range(rounds)}
        last = 2 + 2 * rounds
        rng = random.Random(seed)  # noqa: S311
        fan_out = rng.choice([step for step, count in tasks.items() if count == max(tasks.values())])
        others = [step for step in range(1, last + 1) if step != fan_out]
        rng.shuffle(others)
        order = [fan_out, *others]
        after = {step: rng.randint(1, max(1, tasks.get(step, 1) - 1)) for step in order[:kills]}
        return cls(last, after, tasks, frozenset(order[kills : kills + 2]))
