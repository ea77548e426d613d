"""A process that commits the steps of one run: random states of one seed, each built in an order of this process's own.

    python -m tests.format.identity_worker <run id> <seed> <order> <steps> [other]

The bucket comes from the environment. With `other`, each state differs from that of the seed in one place. Writes one
word a step: `wrote`, `same` or `conflict`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any
from uuid import UUID

from pydantic import BaseModel, JsonValue

from s3_checkpoint import ActiveSnapshot, StepConflictError, connect


class State(BaseModel):
    """What JSON objects, sets and numbers can be written differently in."""

    score: float
    tags: set[str]
    notes: dict[str, JsonValue]


def value(chance: random.Random, order: random.Random, depth: int) -> Any:
    """A JSON value by `chance`; the order of keys in it by `order`."""
    kind = chance.randrange(6 if depth else 4)
    if kind < 4:
        scalars = [chance.randrange(9), chance.random(), chance.choice([True, False, None]), f"t{chance.randrange(9)}"]
        return scalars[kind]
    parts = [value(chance, order, depth - 1) for _ in range(chance.randrange(5))]
    return parts if kind == 4 else shuffled({f"k{n}": part for n, part in enumerate(parts)}, order)


def shuffled(items: dict[str, Any], order: random.Random) -> dict[str, Any]:
    """The same items, put in one after another in another order."""
    keys = list(items)
    order.shuffle(keys)
    return {key: items[key] for key in keys}


def state(seed: str, order: random.Random, other: bool) -> State:
    """The state of `seed`; `other`: with one difference."""
    chance = random.Random(seed)
    score: Any = chance.randrange(9)
    tags = [f"tag{n}" for n in range(chance.randrange(1, 9))]
    notes = {f"n{n}": value(chance, order, 3) for n in range(chance.randrange(1, 9))}
    if other:
        where = random.Random(f"{seed}:other").randrange(3)
        score += where == 0
        tags += ["more"] if where == 1 else []
        notes["n0"] = [notes["n0"]] if where == 2 else notes["n0"]
    order.shuffle(tags)
    return State(score=order.choice([score, float(score)]), tags=set(tags), notes=shuffled(notes, order))


async def main(run_id: str, seed: str, order: str, steps: str, *rest: str) -> None:
    """Commits them all."""
    mixed = random.Random(order)
    async with connect(State) as checkpointer:
        for step in range(int(steps)):
            payload = shuffled({f"p{n}": n for n in range(5)}, mixed)
            tasks = [ActiveSnapshot(node_name="next", payload=payload)]
            try:
                wrote = await checkpointer.commit_or_confirm(
                    UUID(run_id), step, state(f"{seed}:{step}", mixed, "other" in rest), tasks
                )
            except StepConflictError:
                print("conflict")
            else:
                print("wrote" if wrote else "same")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
