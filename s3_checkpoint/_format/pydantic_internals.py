"""All that this library relies on in pydantic beyond its documentation, and what happens if a release moves it.

    private                  asked for                                     if it is not there
    `TypeAdapter._config`    were settings given to an adapter? They       they count as given: large values of the type
                             are in no schema                              are written whole, unless it is a record

Everything else goes by documented names. No caller sees an error because one of these moved; only time is lost.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

PRIVATES = ("_config",)
"""The attributes of `TypeAdapter` above; a test takes each away."""


def has_settings(adapter: TypeAdapter[Any]) -> bool:
    """Whether settings were given to `adapter` itself, beside those in its type; True where pydantic does not tell."""
    return getattr(adapter, "_config", "not told") is not None
