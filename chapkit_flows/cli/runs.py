"""The commands that run a model's flows in this process: train, predict, validate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.cli.changes import read_config
from chapkit_flows.cli.output import (
    print_diagnostics,
    print_facts,
    print_json,
    print_line,
    say,
    show_error,
    whole_path,
)
from chapkit_flows.cli.server import recorded_run, run_here, watched
from chapkit_flows.data.tables import write_csv
from chapkit_flows.errors import ArtifactError, ChapkitFlowsError, ConfigNotFound, DataError, ModelNotFound
from chapkit_flows.flows.model import Model
from chapkit_flows.flows.results import ValidateResult
from chapkit_flows.flows.training import resolve_reference
from chapkit_flows.lineage.query import get_artifact, producer
from chapkit_flows.models.discovery import load_model
from chapkit_flows.refs import Diagnostic
from chapkit_flows.resources import open_facts, open_resources


def train(options: argparse.Namespace) -> int:
    """Train a model and print the id of the trained one."""
    model = find_model(options.model)
    begun: list[str] = []

    async def work() -> Any:
        config = await read_config(model, options)
        flow = watched(model.train, begun)
        return await _run(flow, config, options.data, options.geo, options.prediction_periods)

    try:
        result = run_here(work(), options)
    except ChapkitFlowsError as error:
        return show_error(error, options, recorded_run(begun))
    if options.json:
        print_json(result.to_dict())
        return 0
    print_facts([("Trained model", result.artifact_id), ("Run", result.run_id)])
    print_line(f"\nPredict with it:\n  chapkit-flows predict {result.artifact_id} --historic URI --future URI")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Predict with a trained model and print the id of the prediction."""
    if options.out is not None:
        _check_out(options.out, force=options.force)
    model = find_model(options.model or _model_of(options.artifact))
    begun: list[str] = []

    async def work() -> Any:
        return await _run(
            watched(model.predict, begun),
            options.artifact,
            options.historic,
            options.future,
            options.geo,
            options.prediction_periods,
        )

    try:
        result = run_here(work(), options)
    except ChapkitFlowsError as error:
        return show_error(error, options, recorded_run(begun))
    if options.out is not None:
        try:
            write_prediction(result.artifact_id, options.out)
        except DataError as error:
            kept = f"The prediction is kept: chapkit-flows artifacts download {result.artifact_id}"
            raise DataError(f"{error} {kept}") from error
    if options.json:
        print_json(result.to_dict() | ({"out": str(options.out)} if options.out else {}))
        return 0
    facts = [("Prediction", result.artifact_id), ("Run", result.run_id)]
    print_facts([*facts, ("Written to", options.out)] if options.out else facts)
    print_line(f"\nWhere it came from:\n  chapkit-flows lineage {result.artifact_id} --up")
    return 0


def validate(options: argparse.Namespace) -> int:
    """Print what is wrong with the inputs of a training or a prediction."""
    model = find_model(options.model)
    if options.data is None and options.artifact is None:
        raise DataError(
            "Pass --data to check a training, or --artifact, --historic and --future to check a prediction."
        )

    if options.artifact is not None and (options.config or options.set):
        say("With --artifact the config of the training counts: --config and --set are not looked at.")

    async def work() -> ValidateResult:
        try:
            config = await read_config(model, options) if options.artifact is None else None
        except ConfigNotFound as error:
            missing = Diagnostic.error("config_not_found", str(error), "config")
            return ValidateResult(valid=False, diagnostics=(missing,))
        inputs = (options.data, options.artifact, options.historic, options.future, options.geo)
        found: ValidateResult = await _run(model.validate, config, *inputs)
        return found

    result = run_here(work(), options, follow=False)  # it logs the findings that are printed below
    if options.json:
        print_json(result.to_dict())
    else:
        print_diagnostics(result.diagnostics)
        print_line("Valid: a run with these inputs would start." if result.valid else "Not valid.")
    return 0 if result.valid else 2


async def _run(flow: Any, *arguments: Any) -> Any:
    """Run a flow on this event loop."""
    return await flow(*arguments)


def find_model(reference: str) -> Model:
    """Load the model that the user named."""
    model = load_model(reference)
    if not isinstance(model, Model):
        raise ModelNotFound(f"{reference} is a {type(model).__name__} without flows; make it with chapkit_flows.Model.")
    return model


def _model_of(reference: str) -> str:
    """Where the model of a trained artifact was defined."""
    database = open_facts()
    artifact = get_artifact(database, resolve_reference(database, reference))
    run = producer(database, artifact.id)
    if artifact.kind != "training_workspace" or run is None:
        raise ArtifactError(
            f"{artifact.id} is a {artifact.kind}, not a trained model. List the trained models with: "
            "chapkit-flows artifacts list --kind training_workspace"
        )
    if run.entrypoint is None:
        raise ModelNotFound(
            f"{artifact.id} was trained in an interactive session. Say where its model is: --model MODEL"
        )
    file = run.entrypoint.rpartition(":")[0]
    if file.endswith(".py") and not Path(file).is_file():
        # Moved, or on another machine, or in the temporary folder into which a worker copied it.
        raise ModelNotFound(
            f"{artifact.id} was trained by {run.entrypoint}, which is not there. Say where its model is: --model MODEL"
        )
    return run.entrypoint


def _check_out(file: Path, *, force: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if file.suffix not in (".csv", ".parquet"):
        raise DataError(f"--out {file}: write a name that ends in .csv or .parquet.")
    if file.is_dir():
        raise DataError(f"--out {file} is a folder. Choose another name.")
    if not file.parent.is_dir():
        raise DataError(f"--out {file}: there is no folder {file.parent}. Make it first.")
    if file.exists() and not force:
        raise DataError(f"{file} exists already. Remove it, choose another --out, or replace it with --force.")


def write_prediction(artifact_id: str, file: Path) -> None:
    """Write a stored prediction as CSV or Parquet, by the file's suffix."""
    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, artifact_id), allow_pickle=False)
    with whole_path(file) as part:
        if file.suffix == ".csv":
            write_csv(frame, part)
        else:
            frame.to_parquet(part, index=False)
