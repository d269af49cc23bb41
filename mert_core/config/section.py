"""The base of all sections and the kinds of numbers that they share.

Every default is a literal, a dictionary of what an inner section has other than its class, or an inner section made
without arguments. DVC reads literals out of the class bodies, so a changed default makes stale what depends on it, and
a changed comment does not. What a field means is said beside it, or above it where that takes more room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Split = Literal["train", "valid", "test"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Name of a run, teacher or study: also that of folders, DVC stages and MLflow runs."""


class Section(BaseModel):
    """A section of ``params.yaml``: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _fill_inner_sections(cls, given: Any) -> Any:
        """Let what is given of an inner section change the dictionary that is its default, key by key."""
        if not isinstance(given, Mapping):
            return given
        defaults = {name: field.default for name, field in cls.model_fields.items() if isinstance(field.default, dict)}
        changed = {name: given[name] for name in defaults if isinstance(given.get(name), Mapping)}
        return {**given, **{name: {**defaults[name], **value} for name, value in changed.items()}}
