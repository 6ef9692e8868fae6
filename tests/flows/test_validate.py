"""Validation finds what is wrong with the inputs of a run, and leaves no trace."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import CommandLine, model, read_text_table, write_tables
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType

from chapkit_flows import load_model, open_resources
from chapkit_flows.errors import ScriptFailed, ValidationFailed
from chapkit_flows.lineage.query import get_artifact, list_artifacts, list_runs

Change = Callable[[pd.DataFrame], pd.DataFrame]
ABSENT = "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"


class Trained:
    """Tables, trainings of the small models on them, and a prediction."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.tables = {role: str(file) for role, file in write_tables(folder / "data").items()}
        mean, weekly = load_model(model("mean")), load_model(model("weekly"))
        data, geo = self.tables["training"], self.tables["geo"]
        self.artifacts = {
            "mean": mean.train(mean.config(), data).artifact_id,
            "refused later": mean.train(mean.config(label="refused later"), data).artifact_id,
            "mapped": load_model(model("mapped")).train(mean.config(), data, geo).artifact_id,
            "failed": self._fail(),
            "absent": ABSENT,
            "malformed": "rain",
        }
        predicted = mean.predict(self.artifacts["mean"], self.tables["historic"], self.tables["future"])
        self.artifacts["prediction"] = predicted.artifact_id
        self.artifacts["dataset"] = list_artifacts(open_resources().database, kind="dataset")[0].id
        self.weekly = weekly

    def _fail(self) -> str:
        shell = load_model(model("shell"))
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("FAULT", "exits with 1")
            with pytest.raises(ScriptFailed):
                shell.train(shell.config(), self.tables["training"])
        return list_artifacts(open_resources().database, kind="training_workspace", limit=1)[0].id

    def trace(self) -> tuple[int, dict[str, str]]:
        """How many runs are recorded, and the digest of each stored file."""
        files = [file for file in (self.home / "artifacts").rglob("*") if file.is_file()]
        digests = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        return len(list_runs(open_resources().database, limit=1000)), digests


@pytest.fixture(scope="module")
def trained(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("validate")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder / "home"))
        yield Trained(folder)


def _changed(source: str, change: Change, file: Path) -> str:
    change(read_text_table(Path(source))).to_csv(file, index=False)
    return str(file)


def _in_period(text: str) -> Change:
    return lambda table: table.assign(time_period=[text, *table["time_period"].iloc[1:]])


NOTHING: Change = lambda table: table  # noqa: E731  # a table of changes reads best in one line each
NO_ROWS: Change = lambda table: table.head(0)  # noqa: E731
NO_RAIN: Change = lambda table: table.drop(columns="rainfall")  # noqa: E731
ROW_TWICE: Change = lambda table: pd.concat([table, table.tail(1)])  # noqa: E731
GAP: Change = lambda table: table.drop(index=1)  # noqa: E731


@pytest.mark.parametrize("name", ["mean", "mapped", "shell", "point"])
def test_finds_nothing_in_valid_training_inputs(trained: Trained, name: str) -> None:
    """Inputs that fit give no findings, and leave neither bytes nor rows."""
    before, small = trained.trace(), load_model(model(name))
    result = small.validate(small.config(), trained.tables["training"], geo=trained.tables["geo"])
    assert (True, ()) == (result.valid, result.diagnostics)
    assert before == trained.trace()


def test_finds_nothing_in_valid_prediction_inputs(trained: Trained) -> None:
    """Inputs that fit give no findings, and leave neither bytes nor rows."""
    before, mean = trained.trace(), load_model(model("mean"))
    inputs = {role: trained.tables[role] for role in ("historic", "future", "geo")}
    result = mean.validate(model=trained.artifacts["mean"], **inputs)
    assert (True, ()) == (result.valid, result.diagnostics)
    assert before == trained.trace()


@pytest.mark.parametrize(
    ("name", "config", "change", "codes", "field"),
    [
        ("mean", {}, NO_ROWS, ["data_empty"], "data"),
        ("mean", {"prediction_periods": 0}, NOTHING, ["prediction_periods_out_of_bounds"], "prediction_periods"),
        ("mean", {"prediction_periods": 7}, NOTHING, ["prediction_periods_out_of_bounds"], "prediction_periods"),
        ("mean", {}, NO_RAIN, ["missing_covariate"], "data.rainfall"),
        ("mean", {"additional_continuous_covariates": ["wind"]}, NOTHING, ["missing_covariate"], "data.wind"),
        ("mapped", {}, NOTHING, ["missing_geo"], "geo"),
        ("mean", {}, ROW_TWICE, ["duplicate_rows"], "data"),
        ("mean", {}, GAP, ["gap_in_periods"], "data.time_period"),
        ("mean", {}, _in_period("2015-W01"), ["mixed_period_types"], "data.time_period"),
        ("mean", {"label": "refused"}, NOTHING, ["label_refused"], "config.label"),
        ("weekly", {}, NOTHING, ["wrong_period_type"], "data.time_period"),
        (
            "mapped",
            {"additional_continuous_covariates": ["wind"]},
            lambda table: table.assign(wind="1.0"),
            ["additional_covariates_not_allowed", "missing_geo"],
            "config.additional_continuous_covariates",
        ),
    ],
)
def test_finds_fault_in_training_inputs(
    trained: Trained,
    tmp_path: Path,
    name: str,
    config: dict[str, Any],
    change: Change,
    codes: list[str],
    field: str,
) -> None:
    """Each fault of training inputs has its code and names the input; nothing is stored or recorded."""
    before, small = trained.trace(), load_model(model(name))
    data = _changed(trained.tables["training"], change, tmp_path / "data.csv")
    result = small.validate(small.config(**config), data)
    assert (False, codes) == (result.valid, [found.code for found in result.diagnostics])
    assert ("error", field) == (result.diagnostics[0].severity, result.diagnostics[0].field)
    assert before == trained.trace()


@pytest.mark.parametrize(
    ("artifact", "code"),
    [
        ("absent", "training_artifact_not_found"),
        ("malformed", "invalid_training_artifact"),
        ("dataset", "invalid_training_artifact"),
        ("prediction", "invalid_training_artifact"),
        ("mapped", "invalid_training_artifact"),
        ("failed", "training_artifact_failed"),
    ],
)
def test_finds_fault_in_trained_model(trained: Trained, artifact: str, code: str) -> None:
    """An id that this model cannot predict with has a code of its own kind."""
    mean = load_model(model("mean"))
    inputs = {role: trained.tables[role] for role in ("historic", "future")}
    result = mean.validate(model=trained.artifacts[artifact], **inputs)
    assert [("error", code, "model")] == [(one.severity, one.code, one.field) for one in result.diagnostics]


@pytest.mark.parametrize(
    ("artifact", "role", "change", "codes"),
    [
        ("mean", "historic", NO_ROWS, ["historic_empty"]),
        ("mean", "future", NO_ROWS, ["future_empty"]),
        ("mean", "historic", NO_RAIN, ["missing_covariate"]),
        ("mean", "future", NO_RAIN, ["missing_covariate"]),
        ("mean", "future", ROW_TWICE, ["duplicate_rows"]),
        ("mean", "future", GAP, ["gap_in_periods"]),
        ("mean", "historic", _in_period("2015-W01"), ["mixed_period_types"]),
        ("refused later", "future", NOTHING, ["label_refused"]),
    ],
)
def test_finds_fault_in_prediction_inputs(
    trained: Trained, tmp_path: Path, artifact: str, role: str, change: Change, codes: list[str]
) -> None:
    """Each fault of prediction inputs has its code; nothing is stored or recorded."""
    before, mean = trained.trace(), load_model(model("mean"))
    inputs = {name: trained.tables[name] for name in ("historic", "future")}
    inputs[role] = _changed(inputs[role], change, tmp_path / f"{role}.csv")
    result = mean.validate(model=trained.artifacts[artifact], **inputs)
    assert (False, codes) == (result.valid, [one.code for one in result.diagnostics if one.severity == "error"])
    assert before == trained.trace()


def test_asks_for_polygons_to_predict(trained: Trained) -> None:
    """A model that needs polygons needs them for its predictions too."""
    inputs = {role: trained.tables[role] for role in ("historic", "future")}
    result = load_model(model("mapped")).validate(model=trained.artifacts["mapped"], **inputs)
    assert ["missing_geo"] == [found.code for found in result.diagnostics]


def test_finds_future_beyond_bound(trained: Trained, tmp_path: Path) -> None:
    """More periods of future data than the model predicts are an error."""
    future = str(write_tables(tmp_path, horizon=7)["future"])
    mean = load_model(model("mean"))
    result = mean.validate(model=trained.artifacts["mean"], historic=trained.tables["historic"], future=future)
    codes = [found.code for found in result.diagnostics]
    assert ["prediction_periods_out_of_bounds", "prediction_periods_mismatch"] == codes


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (
            lambda table: table.assign(location=table["location"].replace("OU_002", "OU_9")),
            {"unknown_location", "location_not_in_future"},
        ),
        (
            lambda table: table[table["time_period"] > "2016-01"],
            {"prediction_periods_mismatch", "future_not_adjacent"},
        ),
        (lambda table: table[table["location"] != "OU_002"], {"location_not_in_future"}),
        (
            lambda table: table[(table["location"] != "OU_002") | (table["time_period"] < "2016-03")],
            {"uneven_future"},
        ),
    ],
)
def test_warns_of_odd_future(trained: Trained, tmp_path: Path, change: Change, codes: set[str]) -> None:
    """A future that does not follow the history in place or time is allowed, with a warning."""
    future = _changed(trained.tables["future"], change, tmp_path / "future.csv")
    mean = load_model(model("mean"))
    result = mean.validate(model=trained.artifacts["mean"], historic=trained.tables["historic"], future=future)
    found = {(one.severity, one.code) for one in result.diagnostics}
    assert (True, {("warning", code) for code in codes}) == (result.valid, found)


def test_predict_warns_of_other_horizon(trained: Trained, caplog: pytest.LogCaptureFixture) -> None:
    """An explicit horizon other than that of the future data is a warning in the log; the run goes on."""
    mean = load_model(model("mean"))
    result = mean.predict(
        trained.artifacts["mean"], trained.tables["historic"], trained.tables["future"], prediction_periods=2
    )
    assert "completed" == result.status
    assert ["WARNING"] == [one.levelname for one in caplog.records if "prediction_periods_mismatch" in one.message]


def test_finds_several_faults_at_once(trained: Trained, tmp_path: Path) -> None:
    """All faults are told together, errors before warnings."""
    mapped = load_model(model("mapped"))
    data = _changed(trained.tables["training"], lambda table: ROW_TWICE(GAP(table)), tmp_path / "data.csv")
    result = mapped.validate(mapped.config(), data)
    assert {"duplicate_rows", "gap_in_periods", "missing_geo"} == {found.code for found in result.diagnostics}


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"data": "nothing.csv"}, "data_not_found"),
        ({}, "data_error"),
        ({"data": f"artifact://{ABSENT}"}, "artifact_not_found"),
        ({"data": "artifact://rain"}, "invalid_id"),
    ],
)
def test_tells_unreadable_input_as_finding(trained: Trained, inputs: dict[str, str], code: str) -> None:
    """An input that cannot be read is a finding like others, not an exception."""
    mean = load_model(model("mean"))
    result = mean.validate(mean.config(), **inputs)
    assert [("error", code, "data")] == [(one.severity, one.code, one.field) for one in result.diagnostics]


def test_tells_unknown_config_as_finding(trained: Trained, cli: CommandLine) -> None:
    """A saved config that is not there is a finding on the command line."""
    ended = cli("validate", model("mean"), "--data", trained.tables["training"], "--config", "no-such", "--json")
    assert (2, False) == (ended.code, ended.json["valid"])
    assert [("config_not_found", "config")] == [(found["code"], found["field"]) for found in ended.json["diagnostics"]]


def test_shows_errors_as_table_before_fit(server: str, home: Path, tmp_path: Path) -> None:
    """Training on bad data fails before the fit, and shows all findings as a table on the Prefect server."""
    tables = write_tables(tmp_path)
    mapped = load_model(model("mapped"))
    data = _changed(str(tables["training"]), GAP, tmp_path / "data.csv")
    with pytest.raises(ValidationFailed, match="gap_in_periods") as failure:
        mapped.train(mapped.config(), data)
    (run,) = list_runs(open_resources().database)
    assert "failed" == run.status
    assert "fit_seconds" not in run.metrics
    rows = json.loads(_newest_table())
    assert [(one.severity, one.code, one.message) for one in failure.value.diagnostics] == [
        (row["severity"], row["code"], row["message"]) for row in rows
    ]


def _newest_table() -> str:
    async def read() -> list[Any]:
        tables = ArtifactFilter(type=ArtifactFilterType(any_=["table"]))
        async with get_client() as client:
            return await client.read_artifacts(artifact_filter=tables)

    return max(asyncio.run(read()), key=lambda artifact: artifact.created).data


def test_finds_trained_model_without_bytes(server: str, home: Path, tmp_path: Path) -> None:
    """A trained model whose bytes are gone is found before a prediction is tried."""
    tables = {name: str(path) for name, path in write_tables(tmp_path / "data").items()}
    mean = load_model(model("mean"))
    trained = mean.train(mean.config(), tables["training"])
    digest = get_artifact(open_resources().database, trained.artifact_id).digest
    (home / "artifacts/objects/sha256" / digest[7:9] / digest[9:]).unlink()
    result = mean.validate(model=trained.artifact_id, historic=tables["historic"], future=tables["future"])
    assert ["training_artifact_missing"] == [found.code for found in result.diagnostics]
