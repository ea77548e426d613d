"""LangGraph's conformance suite: all its capabilities, async and sync, on the memory store and on the moto server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from s3_checkpoint.langgraph import S3Saver


class BySyncMethods(BaseCheckpointSaver[str]):
    """The suite calls async methods alone; this one answers them with the sync methods of another saver."""

    def __init__(self, saver: S3Saver) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await asyncio.to_thread(self._saver.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await asyncio.to_thread(self._saver.put_writes, config, writes, task_id, task_path)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await asyncio.to_thread(self._saver.get_tuple, config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[CheckpointTuple]:
        for item in await asyncio.to_thread(lambda: list(self._saver.list(config, **options))):
            yield item

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self._saver.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await asyncio.to_thread(self._saver.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await asyncio.to_thread(self._saver.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(lambda: self._saver.prune(thread_ids, strategy=strategy))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await asyncio.to_thread(lambda: self._saver.get_delta_channel_history(config=config, channels=channels))


@pytest.mark.parametrize("methods", ["async", "sync"])
async def test_every_capability_of_the_conformance_suite_is_there_and_passes(
    new_saver: Callable[[], S3Saver], methods: str
) -> None:
    """Nothing is skipped: what the published suite knows, the saver has."""

    @checkpointer_test(name=f"S3Saver by {methods} methods")
    async def factory() -> AsyncGenerator[BaseCheckpointSaver[str], None]:
        saver = await asyncio.to_thread(new_saver)  # the suite counts on an empty one for each capability
        yield saver if methods == "async" else BySyncMethods(saver)

    report = await validate(factory)

    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert failures == {}
    assert {name for name, result in report.results.items() if result.passed} == {item.value for item in Capability}
    assert sum(result.tests_passed for result in report.results.values()) >= 60
