"""The command that makes data to try a model with."""

from __future__ import annotations

import argparse
import filecmp
import tempfile
from pathlib import Path

from chapkit_flows.cli.output import print_facts, print_json, print_line
from chapkit_flows.cli.runs import find_model
from chapkit_flows.data.periods import PeriodType
from chapkit_flows.data.samples import Sample, SampleSpec, make_sample, write_sample
from chapkit_flows.errors import DataError
from chapkit_flows.flows.model import Model

_CENTURY: dict[PeriodType, int] = {"daily": 36500, "weekly": 5200, "monthly": 1200, "yearly": 100}
_DEFAULT: dict[PeriodType, int] = {"daily": 1826, "weekly": 260, "monthly": 60, "yearly": 20}  # five years, or 20


def make(options: argparse.Namespace) -> int:
    """Write training, historic and future data and polygons that fit a model's contract."""
    model = find_model(options.model)
    horizon = options.horizon if options.horizon is not None else _default_horizon(model)
    period_type: PeriodType = "monthly" if model.period_type == "any" else model.period_type
    periods = options.periods if options.periods is not None else _DEFAULT[period_type]
    most = _CENTURY[period_type]
    _check("--places", options.places, least=1)
    _check("--horizon", horizon, least=1, most=most)
    _check("--periods", periods, least=1, most=most)
    _check("--seed", options.seed, least=0)
    spec = SampleSpec(
        period_type=period_type,
        covariates=tuple(model.required_covariates),
        target=model.target,
        places=options.places,
        periods=periods,
        horizon=horizon,
        seed=options.seed,
    )
    try:
        files = _write(make_sample(spec), options.out, force=options.force)
    except OSError as error:
        raise DataError(f"{options.out} cannot be written: {error.strerror}. Choose another --out.") from error
    if options.json:
        print_json({name: str(path) for name, path in files.items()})
        return 0
    print_facts(files.items())
    print_line(f"\nTrain on it:\n  chapkit-flows train {options.model} --data {files['training']} --geo {files['geo']}")
    return 0


def _default_horizon(model: Model) -> int:
    # Not of an instance: the config may have fields that only the user can fill in.
    default = model.config.model_fields["prediction_periods"].get_default(call_default_factory=True, validated_data={})
    return default if isinstance(default, int) else 3


def _write(sample: Sample, folder: Path, *, force: bool) -> dict[str, Path]:
    """Write the files; another file under one of their names is replaced only by force."""
    with tempfile.TemporaryDirectory(prefix="chapkit-flows-sample-") as made:
        for file in write_sample(sample, Path(made)).values():
            there = folder / file.name
            if not force and there.exists() and not filecmp.cmp(there, file, shallow=False):
                raise DataError(
                    f"{there} exists already, with other content. Choose another --out, or replace it with --force."
                )
    return write_sample(sample, folder)


def _check(name: str, value: int, *, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        raise DataError(f"{name} is {value}; write " + (f"{least} to {most}." if most else f"{least} or more."))
