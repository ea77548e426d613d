"""States and run ids that tests share."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

RUN = UUID("0d9b1a51-5a4c-4b6e-9d0b-7f6f1b3f2a10")


class Counter(BaseModel):
    """The smallest state there is."""

    n: int


class Research(BaseModel):
    """A state with a list."""

    question: str
    notes: list[str] = []
