"""What a checkpointer must do: the five calls of the trait, and `commit` and `resume`."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from s3_checkpoint.checkpointer import Checkpointer
from s3_checkpoint.errors import StepConflictError
from s3_checkpoint.models import ActiveSnapshot

_LAST_STEP = 2**64 - 1
_TASKS = [ActiveSnapshot(node_name="write", payload={"section": 2}), ActiveSnapshot(node_name="review")]


class CheckpointerContract:
    """A subclass has a fixture `checkpointer`; runs are new in each test, so it need not be an empty one."""

    pytestmark: pytest.MarkDecorator = pytest.mark.asyncio

    keeps_active_tasks: bool = True
    """False for a checkpointer with only the three calls that it must have: `save_active` then does nothing."""
    commits_once: bool = True
    """False where `commit` keeps concurrent workers apart no more than `save` does."""

    def state(self, n: int) -> Any:
        """A state of the checkpointer's type; equal ones for equal `n`, others for others. Default: `{"n": n}`."""
        return {"n": n}

    @pytest.fixture
    def run_id(self) -> UUID:
        """A run that is not stored."""
        return uuid4()

    async def test_a_saved_step_is_loaded(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """With the state that it was saved with."""
        await checkpointer.save(run_id, 3, self.state(1))

        assert await checkpointer.load(run_id, 3) == self.state(1)

    async def test_saving_again_replaces_the_state(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """The last writer wins."""
        await checkpointer.save(run_id, 0, self.state(1))
        await checkpointer.save(run_id, 0, self.state(2))

        assert await checkpointer.load(run_id, 0) == self.state(2)
        assert await checkpointer.list(run_id) == [0]

    async def test_loading_without_a_step_gives_the_greatest(
        self, checkpointer: Checkpointer[Any], run_id: UUID
    ) -> None:
        """Greatest as a number, not the one saved last, nor the last in alphabetical order."""
        for step in (2, 10, 9):
            await checkpointer.save(run_id, step, self.state(step))

        assert await checkpointer.load(run_id) == self.state(10)

    async def test_steps_are_listed_in_ascending_order(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """Up to the last that there can be."""
        for step in (_LAST_STEP, 10, 0, 9):
            await checkpointer.save(run_id, step, self.state(0))

        assert await checkpointer.list(run_id) == [0, 9, 10, _LAST_STEP]

    async def test_what_was_never_saved_is_none(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """Absence is an answer: of a run, and of a step."""
        assert await checkpointer.load(run_id) is None
        assert await checkpointer.list(run_id) == []
        assert await checkpointer.load_active(run_id, 0) == []
        await checkpointer.save(run_id, 1, self.state(1))

        assert await checkpointer.load(run_id, 0) is None
        assert await checkpointer.load_active(run_id, 1) == []

    async def test_runs_see_nothing_of_each_other(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """Not their states, steps or tasks."""
        other = uuid4()
        await checkpointer.save(run_id, 0, self.state(1))
        await checkpointer.save_active(run_id, 0, _TASKS)

        assert await checkpointer.list(other) == []
        assert await checkpointer.load(other, 0) is None
        assert await checkpointer.load_active(other, 0) == []

    async def test_a_run_id_may_be_text(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """In either case it is the same run."""
        await checkpointer.save(str(run_id).upper(), 0, self.state(1))

        assert await checkpointer.load(run_id, 0) == self.state(1)
        assert await checkpointer.list(str(run_id)) == [0]

    async def test_a_loaded_state_is_the_callers_own(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """What is stored stays as it is, whatever becomes of the object that was saved or loaded."""
        saved = self.state(1)
        await checkpointer.save(run_id, 0, saved)

        first, second = await checkpointer.load(run_id, 0), await checkpointer.load(run_id, 0)

        assert first is not saved
        assert first is not second

    async def test_concurrent_saves_are_all_there(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """Of different steps."""
        await asyncio.gather(*(checkpointer.save(run_id, step, self.state(step)) for step in range(12)))

        assert await checkpointer.list(run_id) == [*range(12)]
        assert [await checkpointer.load(run_id, step) for step in range(12)] == [self.state(step) for step in range(12)]

    async def test_active_tasks_belong_to_their_step(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """Names, payloads and order; replaced by those saved later."""
        if not self.keeps_active_tasks:
            pytest.skip("this checkpointer keeps no active tasks")
        await checkpointer.save(run_id, 0, self.state(0))
        await checkpointer.save_active(run_id, 0, _TASKS[:1])
        await checkpointer.save_active(run_id, 0, _TASKS)
        await checkpointer.save_active(run_id, 1, [])

        assert await checkpointer.load_active(run_id, 0) == _TASKS
        assert await checkpointer.load_active(run_id, 1) == []

    async def test_active_tasks_are_no_step(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """A worker that dies between saving them and saving the state has changed nothing that is seen."""
        await checkpointer.save(run_id, 0, self.state(0))
        await checkpointer.save_active(run_id, 1, _TASKS)

        assert await checkpointer.list(run_id) == [0]
        assert await checkpointer.load(run_id) == self.state(0)

    async def test_what_is_committed_is_resumed(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """The newest step, with its state and its own tasks."""
        assert await checkpointer.resume(run_id) is None
        await checkpointer.commit(run_id, 0, self.state(0), _TASKS[1:])
        await checkpointer.commit(run_id, 1, self.state(1), _TASKS)

        checkpoint = await checkpointer.resume(run_id)

        assert checkpoint is not None
        assert (checkpoint.run_id, checkpoint.step, checkpoint.state) == (run_id, 1, self.state(1))
        assert list(checkpoint.active) == (_TASKS if self.keeps_active_tasks else [])
        assert await checkpointer.load(run_id, 0) == self.state(0)

    async def test_committing_the_same_again_is_a_success(self, checkpointer: Checkpointer[Any], run_id: UUID) -> None:
        """A worker that starts over after a crash calls with the same arguments."""
        for _ in range(2):
            await checkpointer.commit(run_id, 0, self.state(1), _TASKS)

        assert await checkpointer.load(run_id) == self.state(1)

    async def test_exactly_one_of_many_concurrent_commits_wins(
        self, checkpointer: Checkpointer[Any], run_id: UUID
    ) -> None:
        """The others are told so, and the step is the winner's, state and tasks."""
        if not self.commits_once:
            pytest.skip("this checkpointer keeps concurrent commits apart no more than saves")
        tasks = [[ActiveSnapshot(node_name="next", payload=n)] for n in range(12)]

        outcomes = await asyncio.gather(
            *(checkpointer.commit(run_id, 0, self.state(n), tasks[n]) for n in range(12)), return_exceptions=True
        )

        winners = [n for n, outcome in enumerate(outcomes) if outcome is None]
        assert len(winners) == 1, outcomes
        assert all(isinstance(outcome, StepConflictError) for outcome in outcomes if outcome is not None), outcomes
        checkpoint = await checkpointer.resume(run_id)
        assert checkpoint is not None
        assert (checkpoint.state, list(checkpoint.active)) == (self.state(winners[0]), tasks[winners[0]])
