"""What a run of train and predict makes, keeps and records."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from command_line import MODELS, model, read_text_table, write_tables
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun as PrefectFlowRun

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.artifacts.manifests import artifact_from_manifest
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.errors import ChapkitFlowsError, RunnerFailed, ScriptFailed
from chapkit_flows.flows import steps
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_artifact, get_run, list_artifacts, list_runs
from chapkit_flows.refs import ArtifactRef, Diagnostic, digest_of

KEYS = ["time_period", "location"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def story(server: str, tables: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One training and one prediction, as results and as they are recorded."""
    with pytest.MonkeyPatch.context() as environment:
        home = tmp_path_factory.mktemp("story")
        environment.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(home))
        mean = load_model(model("mean"))
        trained = mean.train(mean.config(samples=4), str(tables["training"]), str(tables["geo"]))
        predicted = mean.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
        yield {
            "home": home,
            "trained": trained,
            "predicted": predicted,
            "training": _run(trained.run_id),
            "prediction": _run(predicted.run_id),
        }


def _run(run_id: str) -> RunFact:
    return get_run(open_resources().database, run_id)


def _load(artifact_id: str) -> Any:
    resources = open_resources()
    return load(resources.store, get_artifact(resources.database, artifact_id))


def _artifacts(**filters: Any) -> list[ArtifactRef]:
    return list_artifacts(open_resources().database, **filters)


def _published(flow_run_id: str) -> list[Any]:
    async def read() -> list[Any]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=of_run)

    return asyncio.run(read())


def _model(
    name: str,
    on_train: Callable[..., Any] = lambda config, data, geo=None: "trained",
    on_predict: Callable[..., Any] = lambda config, model, historic, future, geo=None: future[KEYS].assign(
        prediction=1.0
    ),
    **contract: Any,
) -> Model:
    return Model(name=name, config=RunConfig, runner=FunctionalModelRunner(on_train, on_predict), **contract)


class RunConfig(ModelConfig):
    """Settings of the models in this file."""

    level: int = 1


def test_records_training(story: dict[str, Any], tables: dict[str, Path]) -> None:
    """A training is recorded with its inputs, output, config version, code and metrics."""
    run, result = story["training"], story["trained"]
    assert ("completed", "train", "mean") == (run.status, run.flow, run.model)
    assert (run.id, run.status, run.flow_run_id) == (result.run_id, result.status, result.flow_run_id)
    assert f"{MODELS}:mean" == run.entrypoint
    assert ["data", "geo"] == sorted(edge.role for edge in run.inputs)
    digests = {edge.role: edge.artifact.digest for edge in run.inputs}
    assert digest_of(tables["training"].read_bytes()) == digests["data"]
    assert [("model", result.artifact_id)] == [(edge.role, edge.artifact.id) for edge in run.outputs]
    assert {"samples": 4, "label": "", "prediction_periods": 3} == {
        name: run.config.content[name] for name in ("samples", "label", "prediction_periods")
    }
    assert digest_of(MODELS.read_bytes()) == run.code.source_digest
    assert "prefect" in run.code.packages
    assert 0 <= run.metrics["fit_seconds"]
    assert run.started_at <= run.finished_at


def test_records_prediction(story: dict[str, Any]) -> None:
    """A prediction is recorded with the trained model it came from, and with the config of that training."""
    run, result = story["prediction"], story["predicted"]
    assert ["future", "historic", "model"] == sorted(edge.role for edge in run.inputs)
    assert {"model": story["trained"].artifact_id}.items() <= {e.role: e.artifact.id for e in run.inputs}.items()
    assert ["plot", "prediction"] == sorted(edge.role for edge in run.outputs)
    assert result.artifact_id == run.output("prediction").id
    assert story["training"].config.digest == run.config.digest
    assert 0 <= run.metrics["predict_seconds"]
    assert result.workspace_id is None


def test_keeps_forecast_in_order_of_future(story: dict[str, Any], tables: dict[str, Path]) -> None:
    """The stored prediction has a row for each row of the future data, in its order, and the samples as numbers."""
    frame = _load(story["predicted"].artifact_id)
    assert [*KEYS, "sample_0", "sample_1", "sample_2", "sample_3"] == list(frame.columns)
    pd.testing.assert_frame_equal(read_text_table(tables["future"])[KEYS], frame[KEYS], check_dtype=False)
    assert {"float64"} == set(frame.filter(like="sample").dtypes.astype(str))


def test_store_can_be_read_without_database(story: dict[str, Any]) -> None:
    """Each artifact and run has a manifest in the store, from which its bytes can be read."""
    store = open_store(str(story["home"] / "artifacts"))
    artifacts = {one.id: one for one in _artifacts()}
    assert {f"artifacts/{name}" for name in artifacts} == set(store.manifest_names("artifacts"))
    runs = [story["training"], story["prediction"]]
    assert sorted(f"runs/{run.id}" for run in runs) == store.manifest_names("runs")
    document = store.read_manifest(f"artifacts/{story['predicted'].artifact_id}")
    assert story["predicted"].run_id == document["run_id"]
    pd.testing.assert_frame_equal(
        _load(story["predicted"].artifact_id), load(store, artifact_from_manifest(document)), check_exact=True
    )
    for run in runs:
        assert _in_order(run.to_dict()) == _in_order(store.read_manifest(f"runs/{run.id}"))


def _in_order(run: dict[str, Any]) -> dict[str, Any]:
    """A recorded run as JSON types: edges by role, and without its end, which the two writers read off the clock."""
    edges = {name: sorted(run[name], key=lambda edge: edge["role"]) for name in ("inputs", "outputs")}
    return json.loads(json.dumps(run | edges | {"finished_at": None}, default=str))


@pytest.mark.parametrize("flow", ["training", "prediction"])
def test_publishes_summary(story: dict[str, Any], flow: str) -> None:
    """The Prefect UI shows a markdown summary with ids and digests; of a prediction with a picture and numbers."""
    run = story[flow]
    (summary,) = [one for one in _published(run.flow_run_id) if one.type == "markdown"]
    assert run.id in summary.data
    assert run.config.digest.removeprefix("sha256:")[:12] in summary.data
    assert (flow == "prediction") == ("](data:image/png;base64," in summary.data)
    assert (flow == "prediction") == ("| Place | Period | Median | 90 % interval |" in summary.data)
    assert f"made by the run **train** `{story['training'].id}`" in summary.data


@pytest.mark.parametrize(
    ("role", "name", "content", "code"),
    [
        ("data", "nothing.csv", None, "data_not_found"),
        ("data", "text.csv", b"time_period,location,disease_cases\n2020-01,A,many\n", "unreadable_table"),
        ("data", "latin.csv", "time_period,location\n2020-01,Québec\n".encode("latin-1"), "unreadable_table"),
        ("data", "artifact://01JD3Q0Z8V6Y3N5W2T7R9K4M1B", None, "artifact_not_found"),
        ("geo", "geo.json", b"{}", "invalid_geo"),
        ("historic", "nothing.csv", None, "data_not_found"),
        ("future", "artifact://rain", None, "invalid_id"),
    ],
)
def test_publishes_why_input_is_unreadable(
    story: dict[str, Any],
    tables: dict[str, Path],
    tmp_path: Path,
    *,
    role: str,
    name: str,
    content: bytes | None,
    code: str,
) -> None:
    """A run whose input cannot be read shows as a table what `validate` finds, and fails with the same message."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    given = {each: str(tables["training" if each == "data" else each]) for each in ("data", "historic", "future")}
    given[role] = name if "://" in name else str(tmp_path / name)
    mean = load_model(model("mean"))
    with pytest.raises(ChapkitFlowsError) as failure:
        _run_with(mean, story["trained"].artifact_id if role in ("historic", "future") else None, given)
    run = list_runs(open_resources().database, limit=1)[0]
    (table,) = [one for one in _published(run.flow_run_id) if one.key]
    assert [(code, role, str(failure.value))] == [
        (row["code"], row["field"], row["message"]) for row in json.loads(table.data)
    ]
    assert ("table", "mean-diagnostics", "failed") == (table.type, table.key, run.status)


def _run_with(small: Model, trained: str | None, given: dict[str, str]) -> None:
    if trained is None:
        small.train(small.config(), given["data"], given.get("geo"))
    else:
        small.predict(trained, given["historic"], given["future"])


def _on_server(flow_run_id: str) -> PrefectFlowRun:
    async def ask() -> PrefectFlowRun:
        async with get_client() as client:
            return await client.read_flow_run(UUID(flow_run_id))

    return asyncio.run(ask())


def _name_on_server(flow_run_id: str) -> str:
    return _on_server(flow_run_id).name


@pytest.mark.parametrize(("flow", "parts"), [("training", ["training.csv"]), ("prediction", ["{model}", "future.csv"])])
def test_names_the_flow_run(story: dict[str, Any], flow: str, parts: list[str]) -> None:
    """The name of a flow run says model, trained model and data, on the server and in the lineage."""
    run = story[flow]
    expected = " · ".join(["mean", *parts]).format(model=story["trained"].artifact_id)
    assert expected == run.flow_run_name == _name_on_server(run.flow_run_id)


def test_keeps_the_name_that_the_user_gives(server: str, home: Path, tables: dict[str, Path]) -> None:
    """A flow that was told how to name its runs names them so."""
    mean = _model("named")
    trained = mean.train.with_options(flow_run_name="by hand")(mean.config(), str(tables["training"]))
    assert "by hand" == _run(trained.run_id).flow_run_name == _name_on_server(trained.flow_run_id)


def test_tags_the_flow_run(server: str, home: Path, tables: dict[str, Path]) -> None:
    """A run has the name of its model as a tag, and that of its saved config, beside the tags it was given."""
    mean = _model("mean")
    config = mean.config()
    config.save("wet", overwrite=True)
    with tags("by-hand"):
        trained = mean.train(config, str(tables["training"]))
    assert {"by-hand", "mean", "wet"} == set(_on_server(trained.flow_run_id).tags)


def test_is_recorded_as_running_meanwhile(server: str, home: Path, tables: dict[str, Path]) -> None:
    """While the model fits, the run is recorded as running, without an end."""
    seen: list[RunFact] = []

    def on_train(config: Any, data: Any, geo: Any = None) -> str:
        seen.extend(list_runs(open_resources().database))
        return "trained"

    result = _model("watched", on_train).train(RunConfig(), str(tables["training"]))
    assert [(result.run_id, "running", None)] == [(run.id, run.status, run.finished_at) for run in seen]


def test_keeps_same_data_once(server: str, home: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    """The same bytes under two names, and by artifact:// URI, are one dataset."""
    once = _model("once")
    copy = tmp_path / "copy.csv"
    copy.write_bytes(tables["training"].read_bytes())
    first = once.train(RunConfig(), str(tables["training"]))
    (dataset,) = _artifacts(kind="dataset")
    for uri in (str(copy), copy.as_uri(), f"artifact://{dataset.id}"):
        again = once.train(RunConfig(), uri)
        assert first.run_id != again.run_id
        assert [("data", dataset.id)] == [(edge.role, edge.artifact.id) for edge in _run(again.run_id).inputs]
    assert [dataset.id] == [one.id for one in _artifacts(kind="dataset")]


def test_reads_parquet(server: str, home: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    """A Parquet file trains as the CSV file does."""
    frames: list[pd.DataFrame] = []

    def on_train(config: Any, data: pd.DataFrame, geo: Any = None) -> str:
        frames.append(data)
        return "trained"

    file = tmp_path / "training.parquet"
    pd.read_csv(tables["training"]).to_parquet(file)
    watched = _model("parquet-reader", on_train)
    for uri in (tables["training"], file):
        watched.train(RunConfig(), str(uri))
    pd.testing.assert_frame_equal(*frames)


def test_predicts_with_config_of_training(server: str, home: Path, tables: dict[str, Path]) -> None:
    """A prediction uses the config as it was when the model was trained, though the saved block has changed."""
    levels: list[int] = []

    def on_predict(config: Any, model: Any, historic: Any, future: pd.DataFrame, geo: Any = None) -> pd.DataFrame:
        levels.append(config.level)
        return future[KEYS].assign(prediction=1.0)

    levelled = _model("levelled", on_predict=on_predict)
    RunConfig(level=5).save("head", overwrite=True)
    trained = levelled.train(RunConfig.load("head"), str(tables["training"]))
    RunConfig(level=6).save("head", overwrite=True)
    predicted = levelled.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    assert [5] == levels
    run = _run(predicted.run_id)
    assert ("head", 5) == (run.config.name, run.config.content["level"])


def test_prefers_explicit_horizon(server: str, home: Path, tables: dict[str, Path]) -> None:
    """The horizon is the explicit one, else that of the future data, else that of the config."""
    seen: list[int] = []

    def on_train(config: Any, data: Any, geo: Any = None) -> str:
        seen.append(config.prediction_periods)
        return "trained"

    def on_predict(config: Any, model: Any, historic: Any, future: pd.DataFrame, geo: Any = None) -> pd.DataFrame:
        seen.append(config.prediction_periods)
        return future[KEYS].assign(prediction=1.0)

    far = _model("far", on_train, on_predict)
    far.train(RunConfig(prediction_periods=5), str(tables["training"]), prediction_periods=4)
    trained = far.train(RunConfig(prediction_periods=5), str(tables["training"]))
    inputs = (trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    far.predict(*inputs)
    far.predict(*inputs, prediction_periods=2)
    assert [4, 5, 3, 2] == seen
    assert 5 == _run(trained.run_id).config.content["prediction_periods"]


def test_keeps_single_prediction_column(server: str, home: Path, tables: dict[str, Path]) -> None:
    """A model may return one number per place and period."""
    point = load_model(model("point"))
    trained = point.train(point.config(), str(tables["training"]))
    predicted = point.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    frame = _load(predicted.artifact_id)
    assert [*KEYS, "prediction"] == list(frame.columns)
    assert {1.5} == set(frame["prediction"])


def test_trains_on_weeks(server: str, home: Path, tmp_path: Path) -> None:
    """Weekly data goes through a weekly model; its forecast is in ISO weeks."""
    files = write_tables(tmp_path, period_type="weekly")
    weekly = load_model(model("weekly"))
    trained = weekly.train(weekly.config(), str(files["training"]))
    predicted = weekly.predict(trained.artifact_id, str(files["historic"]), str(files["future"]))
    assert {"2015-W13", "2015-W14", "2015-W15"} == set(_load(predicted.artifact_id)["time_period"])


async def test_can_be_awaited(server: str, home: Path, tables: dict[str, Path]) -> None:
    """Inside a coroutine a flow is awaited."""
    awaited = _model("awaited")
    trained = await awaited.train(RunConfig(), str(tables["training"]))
    predicted = await awaited.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    assert ("completed", "completed") == (trained.status, predicted.status)


def test_records_failure(server: str, home: Path, tables: dict[str, Path]) -> None:
    """A run that fails is recorded with its error, its config and what it had read."""

    def on_train(config: Any, data: Any, geo: Any = None) -> None:
        raise ValueError("no rain fell")

    with pytest.raises(RunnerFailed, match="on_train failed: ValueError: no rain fell"):
        _model("failing", on_train).train(RunConfig(level=7), str(tables["training"]))
    (run,) = list_runs(open_resources().database)
    assert "failed" == run.status
    assert run.error.startswith("RunnerFailed: on_train failed: ValueError: no rain fell")
    assert 7 == run.config.content["level"]
    assert ["data"] == [edge.role for edge in run.inputs]
    assert () == run.outputs


def test_retry_after_fit_makes_nothing_twice(
    server: str, home: Path, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retried flow whose first attempt failed between storing and recording ends completed, with one model."""
    complete, failures = steps.RunSession.complete, [ConnectionError("the database went away")]

    async def fail_once(session: Any) -> RunFact:
        if failures:
            raise failures.pop()
        return await complete(session)

    monkeypatch.setattr(steps.RunSession, "complete", fail_once)
    flow = _model("retried").train.with_options(retries=1)
    result = flow(RunConfig(), str(tables["training"]))
    (run,) = list_runs(open_resources().database)
    assert (result.run_id, "completed", None) == (run.id, run.status, run.error)
    assert [result.artifact_id] == [edge.artifact.id for edge in run.outputs]
    assert [result.artifact_id] == [one.id for one in _artifacts(kind="training_workspace")]
    assert 1 == len(_artifacts(kind="dataset"))


def test_retry_after_record_does_not_fit_again(
    server: str, home: Path, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retried flow whose first attempt could not publish its summary keeps what it had recorded."""
    fits: list[int] = []

    def on_train(config: Any, data: Any, geo: Any = None) -> list[int]:
        fits.append(1)
        return fits

    publish, failures = steps.publish, [ConnectionError("the server went away")]

    async def fail_once(*arguments: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        await publish(*arguments, **options)

    monkeypatch.setattr(steps, "publish", fail_once)
    flow = _model("unpublished", on_train).train.with_options(retries=1)
    result = flow(RunConfig(), str(tables["training"]))
    (run,) = list_runs(open_resources().database)
    assert (result.run_id, "completed") == (run.id, run.status)
    assert [result.artifact_id] == [one.id for one in _artifacts(kind="training_workspace")]
    assert [1] == fits


def test_failed_command_leaves_its_workspace(
    server: str, home: Path, tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed command read and printed is kept as a failed artifact of its run."""
    monkeypatch.setenv("FAULT", "exits with 1")
    shell = load_model(model("shell"))
    with pytest.raises(ScriptFailed, match="no rain fell"):
        shell.train(shell.config(), str(tables["training"]))
    (run,) = list_runs(open_resources().database)
    (left,) = run.outputs
    assert ("failed_workspace", "failed", 1) == (left.role, left.artifact.status, left.artifact.metadata["exit_code"])
    resources = open_resources()
    load(resources.store, left.artifact, folder=tmp_path / "left")
    assert "counting places\nno rain fell\n" == (tmp_path / "left/.run/train.stderr").read_text()
    assert "working\n" == (tmp_path / "left/.run/train.stdout").read_text()
    assert {"config.yml", "data.csv", "script.py"} <= {file.name for file in (tmp_path / "left").iterdir()}


def test_keeps_workspaces_of_commands(server: str, home: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    """A shell model's training workspace is restored for its prediction, whose workspace is kept too."""
    shell = load_model(model("shell"))
    trained = shell.train(shell.config(), str(tables["training"]), str(tables["geo"]))
    predicted = shell.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]), str(tables["geo"]))
    resources = open_resources()
    left = get_artifact(resources.database, predicted.workspace_id)
    load(resources.store, left, folder=tmp_path / "left")
    names = {file.name for file in (tmp_path / "left").iterdir() if file.is_file()}
    written = {"trained.txt", "historic.csv", "future.csv", "geo.json", "config.yml", "predictions.csv"}
    assert written <= names
    assert {1.0} == set(_load(predicted.artifact_id)["sample_0"])


@pytest.mark.parametrize("flow", ["train", "predict"])
def test_refuses_unknown_parameters(flow: str) -> None:
    """A misspelt parameter is refused before a run begins."""
    with pytest.raises((TypeError, ValueError, ChapkitFlowsError), match="dataset"):
        getattr(load_model(model("mean")), flow)(dataset="data.csv")


def test_keeps_secrets_of_a_url_to_itself(server: str, home: Path, tables: dict[str, Path]) -> None:
    """The signature of a URL is neither in the name of the run, nor in its parameters, nor in the dataset's facts."""
    folder = tables["training"].parent
    with _served(folder) as port:
        mean = load_model(model("mean"))
        trained = mean.train(mean.config(), f"http://127.0.0.1:{port}/training.csv?sig=SHORTSECRET")
    run = _run(trained.run_id)
    assert "mean · training.csv" == run.flow_run_name == _name_on_server(str(run.flow_run_id))
    assert f"http://127.0.0.1:{port}/training.csv?***" == run.parameters["data"]
    files = [file for file in home.rglob("*") if file.is_file()]
    assert [] == [file for file in files if b"SHORTSECRET" in file.read_bytes()]


@contextmanager
def _served(folder: Path) -> Iterator[int]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd.server_port
        httpd.shutdown()
        thread.join()


def test_model_of_a_failed_run_is_not_kept_as_good(
    server: str, home: Path, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails after its model was stored has no model that one could predict with."""

    async def fail(session: Any) -> None:
        raise RunnerFailed("the database was away")

    monkeypatch.setattr(steps, "record", fail)
    with pytest.raises(RunnerFailed, match="away"):
        _model("late").train(RunConfig(), str(tables["training"]))
    (run,) = list_runs(open_resources().database)
    assert ("failed", ()) == (run.status, run.outputs)


def test_retry_that_fits_otherwise_makes_one_model(
    server: str, home: Path, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flow that is retried after its model was stored has one model, though each fit gives other bytes."""
    fits: list[int] = []

    def on_train(config: Any, data: pd.DataFrame, geo: Any = None) -> int:
        fits.append(len(fits))
        return fits[-1]

    record_once, attempts = steps.record, []

    async def fail_first(session: Any) -> Any:
        attempts.append(session)
        if len(attempts) == 1:
            raise RunnerFailed("the database was away")
        return await record_once(session)

    monkeypatch.setattr(steps, "record", fail_first)
    trained = _model("counting", on_train).train.with_options(retries=1)(RunConfig(), str(tables["training"]))
    run = _run(trained.run_id)
    assert [0, 1] == fits
    assert ["model"] == [edge.role for edge in run.outputs]
    assert 1 == _load(trained.artifact_id)


def test_error_that_is_no_unicode_is_recorded(
    server: str, home: Path, tables: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """A failure whose text has a file name that is not UTF-8 is recorded as a failure."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        caplog.set_level(logging.CRITICAL, logger=name)  # what they log of it could not be sent between processes

    def on_train(config: Any, data: pd.DataFrame, geo: Any = None) -> None:
        raise FileNotFoundError("no file \udce9t\udce9.csv")

    with pytest.raises(RunnerFailed):
        _model("latin", on_train).train(RunConfig(), str(tables["training"]))
    (run,) = list_runs(open_resources().database)
    assert "failed" == run.status
    assert "no file ?t?.csv" in str(run.error)


def test_model_cannot_change_what_is_recorded(server: str, home: Path, tables: dict[str, Path]) -> None:
    """What a model does to its frames stays with it: profile, checks and the next callback see the data as it came."""

    def spoil(frame: pd.DataFrame) -> None:
        frame["time_period"] = "spoilt"
        frame.loc[frame.index[1:], "location"] = "spoilt"
        frame.pop("rainfall")

    def on_train(config: Any, data: pd.DataFrame, geo: Any = None) -> int:
        rows = len(data)
        spoil(data)
        return rows

    def on_predict(config: Any, model: int, historic: pd.DataFrame, future: pd.DataFrame, geo: Any = None) -> Any:
        forecast = future[KEYS].assign(prediction=float(model))
        spoil(historic)
        spoil(future)
        return forecast

    def on_validate(config: Any, *frames: Any) -> None:
        spoil(frames[0])

    runner = FunctionalModelRunner(on_train, on_predict, on_validate, on_validate)
    spoiling = Model(name="spoiling", config=ModelConfig, runner=runner)
    trained = spoiling.train(ModelConfig(), str(tables["training"]))
    predicted = spoiling.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    forecast = _load(predicted.artifact_id)
    assert (6, {24.0}) == (len(forecast), set(forecast["prediction"]))
    artifact = get_artifact(open_resources().database, trained.artifact_id)
    assert (24, 2) == (artifact.metadata["trained_on"]["rows"], artifact.metadata["trained_on"]["places"])


@pytest.mark.parametrize(
    ("returned", "codes"),
    [
        (None, []),
        ([], []),
        (Diagnostic.warning("dry", "A dry year."), ["dry"]),
        ((Diagnostic.warning("dry", "A dry year."),), ["dry"]),
    ],
)
def test_findings_of_a_model(server: str, home: Path, tables: dict[str, Path], returned: Any, codes: list[str]) -> None:
    """A model's own check may return nothing, one finding or some."""
    result = _checking(lambda *_: returned).validate(data=str(tables["training"]))
    assert codes == [found.code for found in result.diagnostics]


@pytest.mark.parametrize("returned", [["dry"], [{"code": "dry"}], "dry", 7, {"a": 1}])
def test_findings_that_are_none(server: str, home: Path, tables: dict[str, Path], returned: Any) -> None:
    """A model's own check that returns something else fails the run, and the message says what to return."""
    checking = _checking(lambda *_: returned)
    with pytest.raises(RunnerFailed, match=r"on_validate_train returned .* Return a list of Diagnostic"):
        checking.train(ModelConfig(), str(tables["training"]))


def test_unknown_severity_is_refused() -> None:
    """A finding has one of the three severities."""
    with pytest.raises(ValueError, match="severity is 'fatal'"):
        Diagnostic(severity="fatal", code="dry", message="A dry year.")  # type: ignore[arg-type]


def _checking(on_validate: Callable[..., Any]) -> Model:
    runner = FunctionalModelRunner(lambda *_: 1, lambda *_: None, on_validate)
    return Model(name="checking", config=ModelConfig, runner=runner)


def test_path_of_a_file_is_no_model(server: str, home: Path, tables: dict[str, Path], tmp_path: Path) -> None:
    """A model that returns the path of a file fails: only the path would be kept."""
    file = tmp_path / "model.bin"
    file.write_bytes(b"x")
    with pytest.raises(RunnerFailed, match=r"model\.bin.*is no folder"):
        _model("file", lambda *_: file).train(RunConfig(), str(tables["training"]))
