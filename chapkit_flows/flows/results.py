"""What the flows return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from chapkit_flows.refs import Diagnostic


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run.

    Attributes:
        run_id: The run in the lineage database.
        status: `completed`.
        artifact_id: What it made: the training workspace, or the prediction.
        flow_run_id: The run on the Prefect server.
    """

    run_id: str
    status: str
    artifact_id: str
    flow_run_id: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult(RunResult):
    """A trained model: pass `artifact_id` to predict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainResult(TrainResult):
    """The newest model after a retraining.

    Attributes:
        is_new: Whether it was trained now; else nothing was new, and it is the one before.
        promoted: Whether it passed the gate and is the champion now; None without a gate, or if nothing was new.
    """

    is_new: bool
    promoted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult(RunResult):
    """A prediction.

    Attributes:
        workspace_id: The folder that the predict command left; None for a model that is not commands.
    """

    workspace_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestResult(RunResult):
    """A backtest: `artifact_id` is that of its scores, a row per fold, place and period.

    Attributes:
        metrics: The mean of each metric over all rows that could be scored.
        folds: How many folds there are, `done`, `reused` from an earlier backtest, and `failed`.
        vintages: Where the folds had only what was known at their origins: the plan (`delay_days`,
            `truth_lag_days`), what was `known`, and how much better they look on revised data (`optimism`).
    """

    metrics: Mapping[str, float]
    folds: Mapping[str, int]
    vintages: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult(RunResult):
    """A sweep: `artifact_id` is that of its table of trials.

    Attributes:
        experiment: The name under which the trials are found again.
        trials: How many there are, `done`, `reused` from an earlier sweep or alike, and `failed`.
        best: The `run_id` of the best trial so far in the experiment, its `number`, the `values` in which it differs,
            and its `score`.
    """

    experiment: str
    trials: Mapping[str, int]
    best: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreResult:
    """Predictions that were scored with the truth.

    Attributes:
        artifact_id: Of the scores, a row per prediction, place and period; None if none could be scored yet.
        metrics: The mean of each metric over all rows.
        predictions: How many were `scored`, are `waiting` for their truth, and `failed` to be scored.
    """

    run_id: str
    status: str
    artifact_id: str | None
    flow_run_id: str | None
    metrics: Mapping[str, float]
    predictions: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateResult:
    """What validation found.

    Attributes:
        valid: Whether a run with these inputs would start.
        diagnostics: All findings, errors first.
    """

    valid: bool
    diagnostics: tuple[Diagnostic, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"valid": self.valid, "diagnostics": [asdict(found) for found in self.diagnostics]}
