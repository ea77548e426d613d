"""Workers, readers and janitors on the same runs, in every order, with faults and leaps of time: promise 6 holds.

Two actors are explored whole, three at random. Times are chosen so that a leap makes what was young old, while a commit
that began before it is not sent after it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import pytest

from s3_checkpoint.object_store import ObjectStore
from tests.proofs.ledger import RUN
from tests.proofs.removal import OTHER, Actor, Removals
from tests.proofs.scheduler import FAULTS, LATE, Explorer, Scenario, World

Program = Callable[[Actor], Coroutine[Any, Any, None]]
HOUR = timedelta(hours=1)
OLD = 3 * HOUR
INLINE: dict[str, Any] = {}
SEPARATE: dict[str, Any] = {"inline_tasks": "never"}
"""Tasks in a snapshot object of their own, as those too large for the metadata are."""
HOLDS = {"inline": INLINE, "separate": SEPARATE}


def play(
    *actors: tuple[str, Program],
    steps: tuple[int, ...] = (1, 2),
    age: timedelta = OLD,
    wraps: Mapping[str, Callable[[ObjectStore], ObjectStore]] | None = None,
    **options: Any,
) -> Scenario:
    """One actor per program, all at once, on a run with `steps`; `wraps` puts something before an actor's store."""

    def scenario(world: World) -> Removals:
        ledger = Removals(world)
        ledger.seed(RUN, *steps, age=age, **options)
        for name, program in actors:
            Actor(ledger, name, wrap=(wraps or {}).get(name, _bare), **options).start(program)
        return ledger

    return scenario


def _bare(store: ObjectStore) -> ObjectStore:
    return store


def commits(step: int) -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        await actor.commit(step, f"{actor.name}:{step}")

    return "worker", program


def resumes_and_commits(step: int) -> tuple[str, Program]:
    """Knows the run, and computes for as long as the explorer likes."""

    async def program(actor: Actor) -> None:
        await actor.resume()
        await actor.pause()
        await actor.commit(step, f"{actor.name}:{step}")

    return "worker", program


def continues(rounds: int) -> tuple[str, Program]:
    return "engine", lambda actor: actor.proceed(rounds)


def messages(count: int, *, begin: bool = False) -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        for n in range(count):
            await actor.superstep(begin=begin and n == 0)

    return "message", program


def knows(step: int, *, count: int = 1) -> tuple[str, Program]:
    """A message for the superstep after `step`, and those that follow it, each in a process of its own."""

    async def program(actor: Actor) -> None:
        known: int | None = step
        for n in range(count):
            actor.forget()
            if n:
                await actor.pause()
            known = await actor.superstep(known=known)
            if known is None:
                return

    return "message", program


def commits_and_knows(step: int) -> tuple[str, Program]:
    """A step that is committed out of order, and a message for the superstep after it."""

    async def program(actor: Actor) -> None:
        await actor.commit(step, f"{actor.name}:{step}")
        actor.forget()
        await actor.superstep(known=step)

    return "worker", program


def prunes(keep_last: int = 1, *, times: int = 1) -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        for _ in range(times):
            await actor.pause()
            await actor.prune(keep_last)

    return "pruner", program


def runs_ahead(*steps: int) -> tuple[str, Program]:
    """Another worker that commits these, and then prunes when they have become old."""

    async def program(actor: Actor) -> None:
        for step in steps:
            await actor.commit(step, f"{actor.name}:{step}")
        await actor.pause()
        await actor.prune(1)

    return "rival", program


def begins_and_runs_ahead() -> tuple[str, Program]:
    """The first delivery of the begin message, what came after it, and the janitor."""

    async def program(actor: Actor) -> None:
        await actor.superstep(begin=True)
        await actor.commit(5, f"{actor.name}:5")
        await actor.pause()
        await actor.prune(1)

    return "rival", program


def deletes() -> tuple[str, Program]:
    return "deleter", lambda actor: actor.delete()


def forks(step: int) -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        await actor.fork(step)

    return "forker", program


def begins_other() -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        await actor.commit(0, f"{actor.name}:0", OTHER)

    return "worker", program


def resumes() -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        await actor.resume()

    return "reader", program


def looks(step: int) -> tuple[str, Program]:
    async def program(actor: Actor) -> None:
        await actor.load_active(step)

    return "reader", program


def looks_back() -> tuple[str, Program]:
    return "reader", lambda actor: actor.history()


LEAPS = [timedelta(minutes=29), timedelta(minutes=32), 2 * HOUR]
Play = Callable[..., Scenario]


def _play(*actors: tuple[str, Program], **fixed: Any) -> Play:
    return lambda **options: play(*actors, **{**fixed, **options})


PLAYS: dict[str, Play] = {
    "a commit and a prune": _play(commits(3), prunes()),
    "a commit of a gap and a prune": _play(commits(1), prunes(), steps=(0, 3)),
    "a commit of a step that is pruned, and a prune": _play(commits(1), prunes()),
    "a commit and a delete": _play(commits(3), deletes(), steps=(2,)),
    "a prune and a delete": _play(prunes(), deletes()),
    "two prunes": _play(prunes(), prunes(2)),
    "a fork and a prune": _play(forks(1), prunes()),
    "a fork and a delete": _play(forks(1), deletes(), steps=(1,)),
    "two forks": _play(forks(1), forks(2)),
    "the same fork twice": _play(forks(2), forks(2)),
    "a fork and a worker that begins": _play(forks(2), begins_other()),
    "messages that know their step and a prune": _play(knows(2, count=2), prunes()),
    "a stale message and a prune": _play(knows(1), prunes(), steps=(1, 2, 3)),
    "two chains of messages": _play(knows(2, count=2), knows(2)),
    "a message and a delete": _play(knows(2), deletes(), steps=(2,), age=timedelta(0)),
    "a step out of order, its message and a prune": _play(commits_and_knows(2), prunes(), steps=(1, 3, 4)),
    "a reader and a prune": _play(resumes(), prunes()),
    "a reader of tasks and a prune": _play(looks(1), prunes()),
    "a reader of history and a prune": _play(looks_back(), prunes()),
    "a reader and a delete": _play(resumes(), deletes()),
    "a reader of tasks and a delete": _play(looks(1), deletes(), steps=(1,)),
    "a reader of history and a delete": _play(looks_back(), deletes(), steps=(1,)),
}
SLOW: dict[str, Play] = {
    "a rival runs ahead and prunes": _play(resumes_and_commits(3), runs_ahead(3, 4), steps=(2,)),
    "a message and a prune": _play(messages(1), prunes()),
    "a rival runs ahead of a message that knows its step": _play(
        knows(3), runs_ahead(4, 5), steps=(2, 3), age=timedelta(0)
    ),
    "a begin message, again": _play(messages(1, begin=True), begins_and_runs_ahead(), steps=()),
}
"""Time passes in these."""
CROWDS: dict[str, Play] = {
    "two engines and a janitor": _play(continues(2), continues(2), prunes(times=2)),
    "messages, a janitor and a reader": _play(messages(3), prunes(times=2), looks_back()),
    "an engine, a janitor and a deleter": _play(continues(2), prunes(), deletes()),
    "a rival, a straggler and a begin message": _play(
        resumes_and_commits(3), runs_ahead(3, 4, 5), messages(2, begin=True)
    ),
    "messages that know their step, a rival and a janitor": _play(
        knows(2, count=3), runs_ahead(3, 4, 5), prunes(times=2), age=timedelta(0)
    ),
    "messages, steps out of order and a janitor": _play(
        knows(1, count=3), commits_and_knows(3), prunes(times=2), steps=(1, 5, 6), age=timedelta(minutes=58)
    ),
    "forks, a worker and a janitor": _play(forks(1), forks(2), begins_other(), prunes()),
}


WIDE = {
    ("a commit and a prune", "separate"),
    ("a commit of a gap and a prune", "separate"),
    ("a commit and a delete", "separate"),
    ("a fork and a prune", "separate"),
    ("two forks", "separate"),
    ("a fork and a worker that begins", "separate"),
    ("a message and a delete", "inline"),
    ("a reader of tasks and a prune", "separate"),
    ("a reader of history and a prune", "separate"),
    ("a rival runs ahead and prunes", "inline"),
    ("a begin message, again", "inline"),
    ("a prune and a delete", "inline"),
    ("a prune and a delete", "separate"),
    ("a fork and a delete", "separate"),
    ("a reader of tasks and a delete", "separate"),
    ("a reader and a delete", "separate"),
    ("the same fork twice", "separate"),
    ("a rival runs ahead and prunes", "separate"),
    ("a begin message, again", "separate"),
    ("messages that know their step and a prune", "inline"),
    ("messages that know their step and a prune", "separate"),
    ("a stale message and a prune", "inline"),
    ("a stale message and a prune", "separate"),
    ("two chains of messages", "inline"),
    ("two chains of messages", "separate"),
    ("a message and a delete", "separate"),
    ("a step out of order, its message and a prune", "inline"),
    ("a step out of order, its message and a prune", "separate"),
    ("a rival runs ahead of a message that knows its step", "inline"),
    ("a rival runs ahead of a message that knows its step", "separate"),
}
"""More than a few hundred schedules: at random here, in every order with the long tests."""


@pytest.mark.parametrize(("name", "tasks"), [(name, tasks) for name in PLAYS for tasks in HOLDS])
def test_two_actors_in_every_order_with_every_fault(name: str, tasks: str) -> None:
    """Whatever becomes of each request, the crash of an actor and a lost answer included."""
    explorer = Explorer(PLAYS[name](**HOLDS[tasks], snapshot_objects="when_large"))
    report = explorer.sample(60, seed=0) if (name, tasks) in WIDE else explorer.explore()

    print(report)
    assert report.schedules > 20


@pytest.mark.parametrize(("name", "tasks"), [(name, tasks) for name in SLOW for tasks in HOLDS])
def test_two_actors_in_every_order_while_time_passes(name: str, tasks: str) -> None:
    """Two hours pass at any moment; and at random, half an hour twice, and faults."""
    scenario = SLOW[name](**HOLDS[tasks], snapshot_objects="when_large")
    explorer = Explorer(scenario, budget=0, leaps=[2 * HOUR])
    report = explorer.sample(150, seed=0) if (name, tasks) in WIDE else explorer.explore()

    print(report)
    assert report.schedules > 20
    Explorer(scenario, [*FAULTS, *LATE], leaps=LEAPS).sample(20, seed=0)


@pytest.mark.parametrize(("count", "seed"), [(20, 0), pytest.param(20_000, None, marks=pytest.mark.long)])
@pytest.mark.parametrize("tasks", HOLDS)
@pytest.mark.parametrize("name", CROWDS)
def test_three_actors_at_random(name: str, tasks: str, count: int, seed: int | None) -> None:
    """With two faults, and time that passes; the seed is printed."""
    report = Explorer(CROWDS[name](**HOLDS[tasks]), [*FAULTS, *LATE], budget=2, leaps=LEAPS).sample(count, seed)

    assert report.requests > 8 * count


@pytest.mark.long
@pytest.mark.parametrize("tasks", HOLDS)
@pytest.mark.parametrize("name", [*PLAYS, *SLOW])
def test_two_actors_in_every_order_with_late_effects(name: str, tasks: str) -> None:
    """The copies of inline tasks are sent too, and writes land when nobody waits for them any more."""
    leaps = LEAPS[1:] if name in SLOW else []

    report = Explorer((PLAYS | SLOW)[name](**HOLDS[tasks]), [*FAULTS, *LATE], leaps=leaps).explore()

    print(report)
