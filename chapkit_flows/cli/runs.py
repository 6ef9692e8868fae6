"""The commands that run a model's flows in this process: train, predict, validate."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.cli.output import (
    follow_run,
    print_diagnostics,
    print_facts,
    print_json,
    print_line,
    say,
    whole_path,
)
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import load_config
from chapkit_flows.configs.versions import explain
from chapkit_flows.data.tables import write_csv
from chapkit_flows.errors import (
    ArtifactError,
    ConfigNotFound,
    DataError,
    InvalidConfig,
    ModelNotFound,
    ServerUnavailable,
)
from chapkit_flows.flows.model import Model
from chapkit_flows.flows.results import ValidateResult
from chapkit_flows.lineage.query import get_artifact, producer
from chapkit_flows.models.discovery import load_model
from chapkit_flows.refs import Diagnostic
from chapkit_flows.resources import open_resources

T = TypeVar("T")


def train(options: argparse.Namespace) -> int:
    """Train a model and print the id of the trained one."""
    model = find_model(options.model)

    async def work() -> Any:
        config = await read_config(model, options)
        return await _run(model.train, config, options.data, options.geo, options.prediction_periods)

    result = run_here(work(), options)
    if options.json:
        print_json(result.to_dict())
        return 0
    print_facts([("Trained model", result.artifact_id), ("Run", result.run_id)])
    print_line(f"\nPredict with it:\n  chapkit-flows predict {result.artifact_id} --historic URI --future URI")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Predict with a trained model and print the id of the prediction."""
    if options.out is not None:
        _check_out(options.out)
    model = find_model(options.model or _model_of(options.artifact))

    async def work() -> Any:
        return await _run(
            model.predict,
            options.artifact,
            options.historic,
            options.future,
            options.geo,
            options.prediction_periods,
        )

    result = run_here(work(), options)
    if options.out is not None:
        write_prediction(result.artifact_id, options.out)
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

    async def work() -> ValidateResult:
        try:
            config = await read_config(model, options)
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


async def read_config(model: Model, options: argparse.Namespace) -> ModelConfig:
    """The saved config that `--config` names, or the defaults; then what `--set` changes."""
    config = await load_config(model.config, options.config) if options.config else None
    changes = dict(_split_setting(text) for text in options.set)
    if config is not None and not changes:
        return config
    try:
        return model.config.model_validate((config.values() if config else {}) | changes)
    except ValidationError as error:
        raise InvalidConfig(f"The config does not fit {model.config.__name__}: {explain(error)}") from error


def _split_setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InvalidConfig(f"--set {text!r}: write it as key=value, such as --set n_lags=4.")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InvalidConfig(f"--set {text!r}: the value is not readable YAML: {error}") from error


def run_here(work: Coroutine[Any, Any, T], options: argparse.Namespace, *, follow: bool = True) -> T:
    """Run a flow in this process, against the server that Prefect is set to, or a temporary one.

    Raises:
        ServerUnavailable: The server that Prefect is set to does not answer.
    """
    url = PREFECT_API_URL.value()
    if not url and not options.json:
        say("Starting a temporary Prefect server (20 seconds the first time, then 5) …")
    try:
        with follow_run(options) if follow else nullcontext():
            return asyncio.run(work)
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        raise ServerUnavailable(
            f"The Prefect server at {url or 'this machine'} does not answer: {error}. Start it with "
            "`prefect server start`, correct PREFECT_API_URL, or unset it to use a temporary server."
        ) from error


def _model_of(artifact_id: str) -> str:
    """Where the model of a trained artifact was defined."""
    database = open_resources().database
    artifact = get_artifact(database, artifact_id)
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


def _check_out(file: Path) -> None:
    """Refuse before the work what could not be written after it."""
    if file.suffix not in (".csv", ".parquet"):
        raise DataError(f"--out {file}: write a name that ends in .csv or .parquet.")
    if file.is_dir():
        raise DataError(f"--out {file} is a folder. Choose another name.")
    if not file.parent.is_dir():
        raise DataError(f"--out {file}: there is no folder {file.parent}. Make it first.")


def write_prediction(artifact_id: str, file: Path) -> None:
    """Write a stored prediction as CSV or Parquet, by the file's suffix."""
    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, artifact_id), allow_pickle=False)
    with whole_path(file) as part:
        if file.suffix == ".csv":
            write_csv(frame, part)
        else:
            frame.to_parquet(part, index=False)
