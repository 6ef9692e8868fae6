"""The command line called within the test process, and small tables to call it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from chapkit_flows.cli.main import EMBEDDED_DEFAULTS, main
from chapkit_flows.data.samples import SampleSpec, make_sample, write_sample
from chapkit_flows.flows.results import PredictResult, TrainResult

MODELS = Path(__file__).parent / "flows/models/small.py"
TABLES = SampleSpec(covariates=("rainfall",), places=2, periods=12, horizon=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed on stdout, as one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What there is to look at: one training of the shell model, and one prediction with it."""

    tables: dict[str, Path]
    trained: TrainResult
    predicted: PredictResult
    dataset: str


class CommandLine:
    """`chapkit-flows`, without a new process for each command."""

    def __init__(self, capture: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch) -> None:
        # The command sets its defaults in the environment: put back what was there.
        for name, value in (EMBEDDED_DEFAULTS | {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}).items():
            environment.setenv(name, value)
        self._capture = capture

    def __call__(self, *arguments: object) -> Ended:
        """Run a command to its end."""
        self._capture.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            code = int(usage.code or 0)
        printed = self._capture.readouterr()
        return Ended(code=code, out=printed.out, err=printed.err)


def model(name: str) -> str:
    """How the command line names one of the small models."""
    return f"{MODELS}:{name}"


def write_tables(folder: Path, **changes: Any) -> dict[str, Path]:
    """Write training, historic and future data and polygons for the small models."""
    values = {name: getattr(TABLES, name) for name in TABLES.__dataclass_fields__}
    return write_sample(make_sample(SampleSpec(**(values | changes))), folder)


def read_text_table(file: Path) -> pd.DataFrame:
    """A CSV file with each value as the text it is."""
    return pd.read_csv(file, dtype=str, keep_default_na=False)
