"""What the fields of requests have in common: the first thing that is wrong with one is said, in one sentence.

Pydantic notes all that is wrong, which for a list of a million numbers in place of words takes seconds and gigabytes.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

T = TypeVar("T")

# A list of which the first wrong item is told.
Items: TypeAlias = Annotated[list[T], Field(fail_fast=True)]


class Strict(BaseModel):
    """A body that has no other fields than these; the first other one is told."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _forget_more_unknown(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        unknown = [name for name in given if name not in cls.model_fields]
        others = set(unknown[1:])
        return {name: value for name, value in given.items() if name not in others}


def expected(what: str) -> WrapValidator:
    """Return what says this in place of what is wrong with each of the forms that a field may have."""

    def check(value: Any, inner: Any) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError("form", "expected {what}", {"what": what}) from None

    return WrapValidator(check)
