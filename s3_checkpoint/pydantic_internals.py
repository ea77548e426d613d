"""All that this library relies on in pydantic beyond its documentation, and what happens if a release moves it.

    private                                     asked for                          if it is not there
    `BaseModel.__pydantic_decorators__`         has a model validators,            the model counts as one that has: its
                                                serializers, computed fields?      large lists are written whole

Everything else goes by documented names. No caller sees an error because one of these moved; only time is lost.
"""

from __future__ import annotations

from dataclasses import fields

from pydantic import BaseModel, RootModel

PRIVATES = ("__pydantic_decorators__",)
"""The attributes of `BaseModel` above; a test takes each away."""


def has_only_fields(model: type[BaseModel]) -> bool:
    """Whether nothing but its fields and its configuration decides what a model's instances and their JSON are.

    False where pydantic does not tell.
    """
    try:
        decorators = model.__pydantic_decorators__
        decorated = any(getattr(decorators, group.name) for group in fields(decorators))
    except (AttributeError, TypeError):
        return False
    return not (decorated or issubclass(model, RootModel)) and all(
        _function(getattr(model, hook)) is _function(getattr(BaseModel, hook))
        for hook in ("__init__", "model_post_init", "__get_pydantic_core_schema__")
    )


def _function(method: object) -> object:
    return getattr(method, "__func__", method)
