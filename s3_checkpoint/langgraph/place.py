"""Which checkpoint a LangGraph config names."""

from __future__ import annotations

from typing import NamedTuple

from langchain_core.runnables import RunnableConfig

from s3_checkpoint.errors import InvalidArgumentError


class Place(NamedTuple):
    """What a config says of where a checkpoint is; `checkpoint_id` None: the newest."""

    thread_id: str
    namespace: str
    checkpoint_id: str | None

    @classmethod
    def of(cls, config: RunnableConfig) -> Place:
        """Read from `config["configurable"]`; ids are coerced with `str`, and absent or empty means the newest."""
        configurable = config.get("configurable") or {}
        thread_id = configurable.get("thread_id")
        if thread_id is None:
            raise InvalidArgumentError("thread_id", "", "must be given, as config['configurable']['thread_id']")
        checkpoint_id = configurable.get("checkpoint_id")
        return cls(
            str(thread_id), configurable.get("checkpoint_ns") or "", str(checkpoint_id) if checkpoint_id else None
        )

    @property
    def config(self) -> RunnableConfig:
        """The config that leads there, and nothing else."""
        return {
            "configurable": {
                "thread_id": self.thread_id,
                "checkpoint_ns": self.namespace,
                "checkpoint_id": self.checkpoint_id,
            }
        }
