"""What delta channels are rebuilt from: the writes since the nearest stored value, and that value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import DeltaChannelHistory, PendingWrite

from s3_checkpoint._format.thread_keys import ThreadKeys, channel_segment
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.langgraph.ancestors import Ancestor, Ancestors
from s3_checkpoint.langgraph.conversion import Conversion
from s3_checkpoint.langgraph.known_values import Place
from s3_checkpoint.langgraph.thread_store import GoneError, ThreadStore


@dataclass(frozen=True, slots=True)
class DeltaChain:
    """The ancestors of a checkpoint, nearest first, as far back as needed, and the values found there."""

    ancestors: Sequence[Ancestor]
    values: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of the payloads of values and writes."""
        rows = (row for ancestor in self.ancestors for record in ancestor.writes for row in record.rows)
        return sum(map(len, self.values.values())) + sum(len(row.payload[1]) for row in rows)

    @classmethod
    async def read(cls, threads: ThreadStore, place: Place, channels: Sequence[str]) -> DeltaChain:
        """Walks until every channel has met a stored value.

        1 LIST per 1,000 keys, then about log2(ancestors) objects and the values, together; what is not copied along as
        `delta_copies` says, in chunks that grow.
        """
        keys = ThreadKeys.of(threads.prefix, place.thread_id).namespace(place.namespace)
        chain: list[Ancestor] = []
        values: dict[str, bytes] = {}
        missing = set(channels)
        ancestors = Ancestors(threads, keys, place.checkpoint_id, map(channel_segment, channels))
        async with aclosing(ancestors.walk()) as walk:
            async for ancestor in walk:
                chain.append(ancestor)
                record = ancestor.record
                names = [record.values[channel].name for channel in sorted(missing & record.values.keys())]
                values |= {name: ancestors.values[name] for name in names if name in ancestors.values}
                try:
                    values |= await threads.read_values(ancestor.listed, [name for name in names if name not in values])
                except GoneError as error:
                    reason = "a checkpoint refers to it, and it is not there"
                    raise StateDecodingError(threads.objects.bucket, str(error), reason) from None
                missing -= record.inline.keys() | record.values.keys()
        return cls(chain, values)

    def decode(self, conversion: Conversion, channels: Sequence[str]) -> dict[str, DeltaChannelHistory]:
        """Per channel its writes, oldest first, and its seed where there is one."""
        return {channel: self._history(conversion, channel) for channel in channels}

    def _history(self, conversion: Conversion, channel: str) -> DeltaChannelHistory:
        newest_first: list[list[PendingWrite]] = []
        seed: list[Any] = []
        for ancestor in self.ancestors:
            # A value is that before the writes stored beside it, so these count even where the value is.
            newest_first.append(conversion.decode_writes(ancestor.key, ancestor.writes, frozenset((channel,))))
            record = ancestor.record
            if channel in record.inline or channel in record.values:
                seed.append(conversion.load_seed(ancestor.listed.keys, ancestor.key, record, channel, self.values))
                break
        writes = [write for of_one in reversed(newest_first) for write in of_one]
        return {"writes": writes, "seed": seed[0]} if seed else {"writes": writes}
