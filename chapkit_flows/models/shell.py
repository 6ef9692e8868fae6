"""The runner of a model that is two commands, in any language."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from chapkit_flows.errors import InvalidModel, InvalidPrediction, ScriptFailed
from chapkit_flows.models.commands import Log, run_command, split_command
from chapkit_flows.models.definition import find_definition
from chapkit_flows.models.masking import Mask
from chapkit_flows.models.runner import BaseModelRunner, Config, Geo
from chapkit_flows.models.workspace import Project, Workspace
from chapkit_flows.places import folder_names
from chapkit_flows.settings import ChapkitFlowsSettings

CONFIG_FILE = "config.yml"
DATA_FILE = "data.csv"
GEO_FILE = "geo.json"
HISTORIC_FILE = "historic.csv"
FUTURE_FILE = "future.csv"
PREDICTIONS_FILE = "predictions.csv"
# The fields that chap-core's models expect at the top of config.yml; it nests all others.
_CHAP_CORE_TOP = ("prediction_periods", "additional_continuous_covariates")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellPrediction:
    """What a predict command left.

    Attributes:
        file: The predictions it wrote, not yet read.
        workspace: The folder it ran in.
    """

    file: Path
    workspace: Workspace


class ShellModelRunner(BaseModelRunner):
    """Run a model that is two commands, in any language.

    Training runs in a workspace that holds the project's declared files, `config.yml`, `data.csv` and, if the
    run has one, `geo.json`. What the command leaves there is the trained model. Prediction restores that
    workspace, adds `historic.csv` and `future.csv`, and reads the `predictions.csv` that the command writes.

    Commands are split into arguments and run without a shell (for pipes write `sh -c "…"`). Placeholders:
    `{data_file}`, `{geo_file}` (empty without GeoJSON), `{historic_file}`, `{future_file}`, `{output_file}`.

    Args:
        train_command: Such as `Rscript train.R {data_file}`.
        predict_command: Such as `Rscript predict.R {historic_file} {future_file} {output_file}`.
        on_validate_train: `(config, data, geo) -> diagnostics`.
        on_validate_predict: `(config, historic, future, geo) -> diagnostics`.
        config_format: `chap_core` nests the model's own values under `user_option_values`.
        project: The files to copy and the time limit; default: the folder of the file that makes the runner,
            without environments, caches, secrets and databases.
    """

    def __init__(
        self,
        train_command: str,
        predict_command: str,
        *,
        on_validate_train: Callable[..., Any] | None = None,
        on_validate_predict: Callable[..., Any] | None = None,
        config_format: Literal["flat", "chap_core"] = "flat",
        project: Project | None = None,
    ) -> None:
        if config_format not in ("flat", "chap_core"):
            raise InvalidModel(f"config_format is {config_format!r}; write flat or chap_core.")
        for command in (train_command, predict_command):
            split_command(command, {})
        self.train_command = train_command
        self.predict_command = predict_command
        self.config_format = config_format
        self.project = project or Project(folder=find_definition().folder)
        self._on_validate_train = on_validate_train
        self._on_validate_predict = on_validate_predict

    async def on_train(self, config: Config, data: pd.DataFrame, geo: Geo | None = None) -> Workspace:
        """Run the train command.

        Raises:
            ScriptFailed: It exited with another code than 0, or ran too long.
        """
        workspace = Workspace()
        self.project.copy_to(workspace.path)
        _write_csv(data, workspace.path / DATA_FILE)
        files = {"data_file": DATA_FILE, "geo_file": _write_geo(geo, workspace.path)}
        with self._config_file(config, workspace.path):
            return await self._run(("train", self.train_command), files, workspace, Mask(config))

    async def on_predict(
        self,
        config: Config,
        model: os.PathLike[str],
        historic: pd.DataFrame,
        future: pd.DataFrame,
        geo: Geo | None = None,
    ) -> ShellPrediction:
        """Run the predict command in a copy of the training workspace.

        Raises:
            ScriptFailed: It exited with another code than 0, ran too long, or wrote no `predictions.csv`.
        """
        workspace = Workspace()
        shutil.copytree(model, workspace.path, dirs_exist_ok=True)
        output = workspace.path / PREDICTIONS_FILE
        # What an earlier prediction or the project left must not pass for the result of this command.
        output.unlink(missing_ok=True)
        _write_csv(historic, workspace.path / HISTORIC_FILE)
        _write_csv(future, workspace.path / FUTURE_FILE)
        files = {
            "historic_file": HISTORIC_FILE,
            "future_file": FUTURE_FILE,
            "output_file": PREDICTIONS_FILE,
            "geo_file": _write_geo(geo, workspace.path),
        }
        with self._config_file(config, workspace.path):
            finished = await self._run(("predict", self.predict_command), files, workspace, Mask(config))
        if not output.is_file():
            raise ScriptFailed(
                f"The predict command exited with 0 but wrote no {PREDICTIONS_FILE} in its working directory. "
                f"Write the predictions to {{output_file}}.{_tail(finished.stderr)}",
                workspace=finished,
            )
        return ShellPrediction(file=output, workspace=finished)

    def on_validate_train(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Call the user's function, if there is one."""
        return self._on_validate_train(config, data, geo) if self._on_validate_train else []

    def on_validate_predict(
        self,
        config: Any,
        historic: pd.DataFrame,
        future: pd.DataFrame,
        geo: Geo | None = None,
    ) -> Any:
        """Call the user's function, if there is one."""
        return self._on_validate_predict(config, historic, future, geo) if self._on_validate_predict else []

    def join_places(self, returned: Mapping[str, ShellPrediction]) -> ShellPrediction:
        """One folder with that of each place, and the predictions of all places in one file."""
        workspace = Workspace(exit_code=0)
        tables = []
        for place, name in folder_names(returned).items():
            shutil.move(returned[place].workspace.path, workspace.path / name)
            tables.append(_read_csv(workspace.path / name / PREDICTIONS_FILE, place))
        _write_csv(pd.concat(tables, ignore_index=True), workspace.path / PREDICTIONS_FILE)
        return ShellPrediction(file=workspace.path / PREDICTIONS_FILE, workspace=workspace)

    def describe(self, result: Any) -> Mapping[str, Any]:
        """Exit code and last output of the command."""
        return result.facts() if isinstance(result, Workspace) else {}

    def source_digest(self) -> str:
        """Of the commands, and of the names and contents of the project's files."""
        source = hashlib.sha256("\0".join((self.train_command, self.predict_command, self.config_format)).encode())
        for relative in self.project.files():
            with (self.project.folder / relative).open("rb") as content:
                source.update(os.fsencode(relative) + hashlib.file_digest(content, "sha256").digest())
        return f"sha256:{source.hexdigest()}"

    @contextmanager
    def _config_file(self, config: Config, folder: Path) -> Iterator[None]:
        """`config.yml` while the command runs. Afterwards its secret values are masked: the folder will be stored."""
        self._write_config(config, folder, reveal=True)
        try:
            yield
        finally:
            if config.values() != config.values(reveal=True):
                self._write_config(config, folder, reveal=False)

    def _write_config(self, config: Config, folder: Path, *, reveal: bool) -> None:
        values = config.values(reveal=reveal)
        values.pop("validation_rules", None)  # checked before, and nothing to the command
        if self.config_format == "chap_core":
            own = {key: value for key, value in values.items() if key not in _CHAP_CORE_TOP}
            values = {key: values[key] for key in _CHAP_CORE_TOP} | ({"user_option_values": own} if own else {})
        text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")

    async def _run(
        self, what: tuple[str, str], files: Mapping[str, str], workspace: Workspace, mask: Mask
    ) -> Workspace:
        phase, command = what
        arguments = split_command(command, files)
        limit = self.project.timeout_seconds or ChapkitFlowsSettings().script_timeout_seconds
        log = _run_log()
        log.info("Running %s", shlex.join(arguments))
        try:
            done = await run_command(
                arguments,
                folder=workspace.path,
                timeout_seconds=limit,
                log=log,
                logs=workspace.path / ".run" / phase,
                mask=mask,
            )
        except asyncio.CancelledError as stop:
            raise ScriptFailed(
                f"The {phase} command was stopped: the run was cancelled.", workspace=workspace
            ) from stop
        finally:
            for stream in ("stdout", "stderr"):  # the folder will be stored
                mask.clean(workspace.path / ".run" / f"{phase}.{stream}")
        finished = replace(workspace, exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr)
        if done.timed_out:
            reason = f"ran longer than {limit:g} seconds and was stopped"
        elif done.returncode:
            reason = f"exited with {done.returncode}"
        else:
            return finished
        raise ScriptFailed(
            f"The {phase} command {reason}: {shlex.join(arguments)}{_tail(done.stderr)}", workspace=finished
        )


def _write_csv(frame: pd.DataFrame, file: Path) -> None:
    frame.to_csv(file, index=False, lineterminator="\n", encoding="utf-8")


def _read_csv(file: Path, place: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file, dtype=str, keep_default_na=False)
    except ValueError as error:  # what pandas raises for a file that is empty, no CSV or not UTF-8
        raise InvalidPrediction(f"The {PREDICTIONS_FILE} of the place {place!r} is no table: {error}") from error


def _write_geo(geo: Geo | None, folder: Path) -> str:
    """Write `geo.json`, if there is one, and say what to put for `{geo_file}`."""
    if geo is None:
        return ""
    (folder / GEO_FILE).write_text(geo.model_dump_json(exclude_unset=True), encoding="utf-8")
    return GEO_FILE


def _tail(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    return "\n" + "\n".join(lines[-10:]) if lines else "\n(nothing on stderr)"


def _run_log() -> Log:
    """The log of the Prefect run; outside a run, this package's."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("chapkit_flows")
