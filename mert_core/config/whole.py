"""The whole of ``params.yaml``."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from mert_core.config.music import CorpusConfig, DatasetsConfig, PiecesConfig, ProbeSetConfig, StorageConfig
from mert_core.config.pretrain import PretrainConfig, RunChanges
from mert_core.config.probe import ProbeConfig, SweepConfig
from mert_core.config.section import Count, Positive, Section
from mert_core.config.targets import TargetsConfig
from mert_core.errors import MertError


class ReportConfig(Section):
    """The report."""

    runs: Annotated[list[str], Field(min_length=1)]
    teachers: Annotated[list[str], Field(min_length=1)]
    example_seconds: Positive


class TrackingConfig(Section):
    """Where MLflow listens."""

    uri: str | None
    experiment: Annotated[str, Field(min_length=1)]


class CatalogConfig(Section):
    """Where the lineage catalog lies."""

    url: str | None


class Config(Section):
    """The whole of ``params.yaml``."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    corpus: CorpusConfig
    probe_set: ProbeSetConfig
    pieces: PiecesConfig
    teachers: dict[str, dict[str, Any] | None]
    targets: TargetsConfig
    pretrain: PretrainConfig
    runs: dict[str, RunChanges]
    datasets: DatasetsConfig
    probe: ProbeConfig
    report: ReportConfig
    sweep: SweepConfig
    storage: StorageConfig
    tracking: TrackingConfig
    catalog: CatalogConfig

    @model_validator(mode="after")
    def _runs_are_possible(self) -> Self:
        for name in self.runs:
            self.run(name)
        for name in self.report.runs:
            if name not in self.runs:
                raise ValueError(f"report.runs names {name!r}; runs has {sorted(self.runs)}")
        if self.sweep.run not in self.runs:
            raise ValueError(f"sweep.run is {self.sweep.run!r}; runs has {sorted(self.runs)}")
        if self.probe.floor_run not in self.runs:
            raise ValueError(f"probe.floor_run is {self.probe.floor_run!r}; runs has {sorted(self.runs)}")
        return self

    def run(self, name: str) -> PretrainConfig:
        """Return the parameters of a named run: the base with the run's changed lines.

        Raises:
            MertError: no such run, or its changes make an impossible whole.
        """
        if name not in self.runs:
            raise MertError(f"no run is named {name!r}; params.yaml has {', '.join(sorted(self.runs))}")
        changes = self.runs[name].model_dump(exclude_none=True)
        try:
            return PretrainConfig.model_validate({**self.pretrain.model_dump(), **changes})
        except ValidationError as error:
            raise MertError(explain(error, f"runs.{name}")) from error


def explain(error: ValidationError, where: str) -> str:
    """Return what pydantic found wrong, one line per key."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(the whole)"
        found = "" if item["type"] in {"missing", "value_error"} else f" (found {item['input']!r})"
        message = "unknown key" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, ")
        lines.append(f"  {key}: {message}{found}")
    return f"{where} has {len(lines)} error(s):\n" + "\n".join(lines)
