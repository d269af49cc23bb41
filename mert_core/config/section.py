"""The base of all sections and the kinds of numbers that they share.

Every default of a section is a literal, or a section of its own made without arguments. DVC reads literals out of the
class bodies, so a changed default makes stale what depends on it, and a changed docstring does not.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
