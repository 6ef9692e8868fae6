"""Bad input ends with exit code 2 and a message that names the thing and the remedy, and loses nothing."""

from __future__ import annotations

import hashlib
import re
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine, Ended, model, read_text_table, write_tables
from prefect.settings import PREFECT_API_URL, temporary_settings

from chapkit_flows import load_model, open_resources
from chapkit_flows.lineage.migrations import VERSION_TABLE
from chapkit_flows.lineage.query import list_artifacts, list_runs

ABSENT = "01JD3Q0Z8V6Y3N5W2T7R9K4M1B"
HOME = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME"


class Site:
    """A home that holds one training of `mean` and one prediction, and the tables they were made from."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.tables = write_tables(folder / "data")
        small = load_model(model("mean"))
        trained = small.train(small.config(), str(self.tables["training"]))
        predicted = small.predict(trained.artifact_id, str(self.tables["historic"]), str(self.tables["future"]))
        self.training, self.prediction = trained.artifact_id, predicted.artifact_id
        self.dataset = list_artifacts(open_resources().database, kind="dataset")[0].id

    def objects(self) -> dict[str, str]:
        """The digest of each file in the store."""
        files = [file for file in (self.home / "artifacts").rglob("*") if file.is_file()]
        return {str(file.relative_to(self.home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def runs(self) -> int:
        """How many runs are recorded."""
        return len(list_runs(open_resources().database, limit=1000))


@pytest.fixture(scope="module")
def site(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(HOME, str(folder / "home"))
        yield Site(folder)


Refused = Callable[..., Ended]


@pytest.fixture
def refused(site: Site, cli: CommandLine) -> Refused:
    """Run a command that must be refused, and check all that holds of every refusal."""

    def run(*arguments: object, names: str, remedy: str, began: bool = True) -> Ended:
        objects, runs = site.objects(), site.runs()
        ended = cli(*arguments)
        assert 2 == ended.code, ended
        said = ended.err if not ended.out else ended.json["error"]["message"]
        assert re.search(names, said), said
        assert re.search(remedy, said), said
        assert "Traceback" not in ended.out + ended.err
        after = site.objects()
        assert objects == {name: after.get(name) for name in objects}
        assert not [name for name in after if "/tmp/" in name]
        resources = open_resources()
        assert all(resources.store.has(one.digest) for one in list_artifacts(resources.database, limit=1000))
        newest = list_runs(resources.database, limit=1)[0]
        assert (runs + began, "failed" if began else newest.status) == (site.runs(), newest.status)
        assert not began or re.search(names, newest.error), newest.error
        return ended

    return run


def _train(site: Site, name: str = "mean", **options: object) -> list[object]:
    options = {"data": site.tables["training"]} | options
    return ["train", model(name), *(part for key, value in options.items() for part in (f"--{key}", value))]


def _predict(site: Site, artifact: str | None = None, **options: object) -> list[object]:
    options = {"historic": site.tables["historic"], "future": site.tables["future"]} | options
    flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)]
    return ["predict", artifact or site.training, *flags]


@pytest.mark.parametrize(
    ("uri", "names", "remedy"),
    [
        ("{folder}/nothing.csv", r"nothing\.csv", "does not exist. Check the path"),
        ("{folder}", "is a folder", "Name the CSV"),
        ("rain://somewhere/data.csv", "rain://somewhere", "not a path or URL that can be opened|not installed"),
        ("artifact://" + ABSENT, ABSENT, "artifacts list"),
        ("artifact://rain", "'rain' is not an id", "artifacts list"),
        ("", "The URI is empty", "Pass a path"),
    ],
)
def test_refuses_unreadable_uri(
    site: Site, refused: Refused, tmp_path: Path, uri: str, names: str, remedy: str
) -> None:
    """A URI that names nothing readable is refused by its name."""
    refused(*_train(site, data=uri.format(folder=tmp_path)), names=names, remedy=remedy)


def test_refuses_model_as_data(site: Site, refused: Refused) -> None:
    """A trained model is no table to train on."""
    uri = f"artifact://{site.training}"
    refused(*_train(site, data=uri), names=site.training, remedy="neither a table nor GeoJSON")


@pytest.mark.parametrize(
    ("content", "names", "remedy"),
    [
        (b"", "is empty", "Give a table with a header line"),
        (b"time_period,location,disease_cases,rainfall\n", r"data_empty[^$]*header line but no rows", "Add one row"),
        ("time_period,location,disease_cases,rainfall\n2020-01,Québec,1,2\n".encode("latin-1"), "line 2", "UTF-8"),
        ("time_period,location\n2020-01,A\n".encode("utf-16"), r"broken\.csv", "UTF-8"),
        (b"PK\x03\x04" + bytes(range(128, 256)), "Excel workbook", "save the table as UTF-8 CSV"),
        (b"PAR1 but not really", "not a readable Parquet file", "Save it again"),
        (b"time_period;location;disease_cases\n2020-01;A;1\n", "separated by ';'", "with commas"),
        (b"time_period,location,disease_cases,rainfall\n2020-01,A,1,2,3\n", "line 2 has 5 values", "put quotes"),
        (b"time_period,location,disease_cases,rainfall\n2020-01,A,many,2\n", "disease_cases.*'many'", "plain number"),
        (b"time_period,location,disease_cases,rainfall\n2020-01,A,1,wet\n", "rainfall.*'wet'", "plain number"),
    ],
)
def test_refuses_broken_file(
    site: Site, refused: Refused, tmp_path: Path, content: bytes, names: str, remedy: str
) -> None:
    """A file that is no table is refused with the line and the value that are wrong."""
    file = tmp_path / "broken.csv"
    file.write_bytes(content)
    refused(*_train(site, data=file), names=names, remedy=remedy)


def _drop(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=column)


def _fill(column: str, value: str, rows: slice = slice(None)) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.iloc[rows, table.columns.get_loc(column)] = value
        return table

    return change


TABLES = {
    "no time_period": (_drop("time_period"), r"missing_column.*\n?.*'time_period'", "Add or rename"),
    "no location": (_drop("location"), r"missing_column.*\n?.*'location'", "Add or rename"),
    "no target": (_drop("disease_cases"), r"missing_column.*\n?.*'disease_cases'", "Add or rename"),
    "no covariate": (_drop("rainfall"), r"missing_covariate.*\n?.*'rainfall'", "Add it"),
    "covariate all missing": (_fill("rainfall", ""), r"missing_covariate.*\n?.*'rainfall'", "Fill it in"),
    "target all missing": (_fill("disease_cases", ""), r"target_all_missing.*\n?.*'disease_cases'", "Fill it in"),
    "place and period twice": (
        lambda table: pd.concat([table, table.tail(1)]),
        r"duplicate_rows.*\n?.*OU_002.*2015-12",
        "Keep one row",
    ),
    "gap": (lambda table: table.drop(index=4), r"gap_in_periods.*\n?.*OU_001.*2015-05", "Add the missing rows"),
    "weeks and months": (
        _fill("time_period", "2015-W40", slice(0, 1)),
        r"mixed_period_types.*\n?.*2015-W40",
        "Keep one period type",
    ),
    "no period": (_fill("time_period", "spring", slice(2, 3)), r"invalid_period.*\n?.*'spring'.*line 4", "2020-W05"),
    "no place": (_fill("location", "", slice(2, 3)), r"missing_location.*\n?.*line 4", "Name it"),
    "infinite": (_fill("rainfall", "inf", slice(3, 4)), r"infinite_values.*\n?.*'rainfall'.*line 5", "Correct"),
}


@pytest.mark.parametrize("fault", TABLES)
def test_refuses_unfit_table(site: Site, refused: Refused, tmp_path: Path, fault: str) -> None:
    """A table that does not fit is refused with the code and place of what is wrong, before the fit."""
    change, names, remedy = TABLES[fault]
    file = tmp_path / "table.csv"
    change(read_text_table(site.tables["training"])).to_csv(file, index=False)
    ended = refused(*_train(site, data=file), names=names, remedy=remedy)
    assert "Fitted" not in ended.err


def test_refuses_weeks_for_monthly_future(site: Site, refused: Refused, tmp_path: Path) -> None:
    """A future in weeks does not follow a history in months."""
    future = write_tables(tmp_path, period_type="weekly")["future"]
    refused(*_predict(site, future=future), names="historic is monthly, future is weekly", remedy="Use one of them")


@pytest.mark.parametrize(
    ("role", "change", "names"),
    [
        ("historic", lambda table: table.head(0), "historic_empty"),
        ("future", lambda table: table.head(0), "future_empty"),
        ("historic", _drop("rainfall"), "historic has no column 'rainfall'"),
        ("future", _drop("rainfall"), "future has no column 'rainfall'"),
        ("future", lambda table: pd.concat([table, table.tail(1)]), "duplicate_rows"),
    ],
)
def test_refuses_unfit_table_to_predict_with(
    site: Site, refused: Refused, tmp_path: Path, role: str, change: Callable[[pd.DataFrame], pd.DataFrame], names: str
) -> None:
    """Historic and future data are checked before the model is asked."""
    file = tmp_path / f"{role}.csv"
    change(read_text_table(site.tables[role])).to_csv(file, index=False)
    refused(*_predict(site, **{role: file}), names=names, remedy="Add|Keep")


@pytest.mark.parametrize(
    ("options", "names", "remedy"),
    [
        (["--config", "no-such"], "no saved config 'no-such'", "blocks apply"),
        (["--set", "samples=many"], "samples=many: Input should be a valid integer", "SmallConfig"),
        (["--set", "samples"], "--set 'samples'", "key=value"),
        (["--set", "samples=[1"], "--set samples=", "readable YAML"),
        (["--set", "additional_continuous_covariates=rain"], "additional_continuous_covariates", "valid list"),
    ],
)
def test_refuses_config(site: Site, refused: Refused, options: list[str], names: str, remedy: str) -> None:
    """A config that is not there or does not fit is refused before a run begins."""
    refused(*_train(site), *options, names=names, remedy=remedy, began=False)


@pytest.mark.parametrize("periods", [0, -1, 7])
@pytest.mark.parametrize("command", ["train", "predict"])
def test_refuses_horizon_out_of_bounds(site: Site, refused: Refused, command: str, periods: int) -> None:
    """A horizon that the model does not predict is refused with the bounds."""
    arguments = _train(site) if command == "train" else _predict(site)
    names = f"{periods} prediction periods: the model mean predicts 1 to 6"
    refused(*arguments, "--prediction-periods", periods, names=names, remedy="Change prediction_periods")


def test_refuses_future_beyond_bound(site: Site, refused: Refused, tmp_path: Path) -> None:
    """More periods in the future data than the model predicts are refused."""
    future = write_tables(tmp_path, horizon=9)["future"]
    refused(*_predict(site, future=future), names="9 prediction periods", remedy="periods in the future data")


@pytest.mark.parametrize(
    ("artifact", "names", "remedy"),
    [
        (ABSENT, f"No artifact has the id {ABSENT}", "artifacts list"),
        ("rain", "'rain' is not an id", "artifacts list"),
        ("dataset", "is a dataset, not a trained model", "artifacts list --kind training_workspace"),
        ("prediction", "is a prediction, not a trained model", "artifacts list --kind training_workspace"),
    ],
)
@pytest.mark.parametrize("located", [False, True])
def test_refuses_wrong_artifact(
    site: Site, refused: Refused, artifact: str, names: str, remedy: str, located: bool
) -> None:
    """An id of nothing, or of something that is no trained model, is refused, whether or not the model is named."""
    artifact = {"dataset": site.dataset, "prediction": site.prediction}.get(artifact, artifact)
    options = {"model": model("mean")} if located else {}
    refused(*_predict(site, artifact, **options), names=names, remedy=remedy, began=located)


def test_refuses_training_of_another_model(site: Site, refused: Refused) -> None:
    """A model does not predict with what another one has learnt."""
    arguments = _predict(site, model=model("weekly"))
    refused(*arguments, names="was trained by the model mean, not by weekly", remedy="artifacts list")


GEO = '{{"type": "FeatureCollection", "features": [{}]}}'
POINT = '{"type": "Point", "coordinates": [102.5, 15.5]}'
FEATURE = f'{{"type": "Feature", "id": "Elsewhere", "properties": {{}}, "geometry": {POINT}}}'


@pytest.mark.parametrize(
    ("content", "names", "remedy"),
    [
        (GEO.format(FEATURE), r"geo_location_mismatch[^$]*'OU_001', 'OU_002'", "Set the id of each feature"),
        ("not JSON", r"places\.json.* is not JSON", "Export it as GeoJSON"),
        ("[]", "has the type 'list'", "FeatureCollection"),
        (FEATURE, "has the type 'Feature'", "FeatureCollection"),
        (GEO.format(""), "has no features", "one feature per place"),
        (GEO.format('{"type": "Feature"}'), r"features\.0", "Correct it"),
    ],
)
def test_refuses_polygons(site: Site, refused: Refused, tmp_path: Path, content: str, names: str, remedy: str) -> None:
    """Polygons that cannot be read, or are not those of the table's places, are refused."""
    file = tmp_path / "places.json"
    file.write_text(content)
    refused(*_train(site, geo=file), names=names, remedy=remedy)


def test_refuses_lack_of_polygons(site: Site, refused: Refused) -> None:
    """A model that needs polygons does not run without."""
    refused(*_train(site, "mapped"), names=r"missing_geo[^$]*mapped needs polygons", remedy="Pass a GeoJSON")


@pytest.mark.parametrize(
    ("fault", "names", "remedy"),
    [
        ("train raises", r"on_train failed: ZeroDivisionError: no rain fell \(.*small\.py, line", "log of the run"),
        ("train returns None", "on_train of the model mean returned None", "Return the fitted model"),
        ("open file", r"holds an open file \(_io\.", "Keep only plain data"),
        ("lock", r"holds a lock \(_thread\.lock", "Keep only plain data"),
        ("generator", "holds a generator", "Keep only plain data"),
    ],
)
def test_reports_failed_training(
    site: Site, refused: Refused, monkeypatch: pytest.MonkeyPatch, fault: str, names: str, remedy: str
) -> None:
    """A model that cannot be trained or kept fails its run with a reason."""
    monkeypatch.setenv("FAULT", fault)
    refused(*_train(site), names=names, remedy=remedy)


@pytest.mark.parametrize(
    ("fault", "names", "remedy"),
    [
        ("predict raises", "on_predict failed: KeyError: 'the sea'", "log of the run"),
        ("returns None", "returned NoneType, not a frame", "Return time_period"),
        ("returns a list", "returned list, not a frame", "Return time_period"),
        ("no location", "have no column location", "Return time_period"),
        ("no values", "have no values", "Return time_period"),
        ("sample numbers with a gap", "not numbered from 0", "Return time_period"),
        ("too few rows", "lack 1 rows, such as OU_002 in 2016-03", "one row for each row of future"),
        ("too many rows", "beyond those of future, 1 rows, such as OU_002 in 2031-01", "one row for each"),
        ("a row twice", "repeat 1 rows, such as OU_002 in 2016-03", "one row for each"),
        ("missing value", "1 values of sample_1 are not finite.* OU_001 in 2016-01", "Return a number"),
        ("infinite value", "1 values of sample_1 are not finite.* OU_001 in 2016-01", "Return a number"),
        ("text value", "sample_1 are not finite numbers, such as 'many'", "Return a number"),
        ("unknown place", "lack 1 rows, such as OU_001 in 2016-01", "one row for each row of future"),
        ("no period", "In the predictions: 'next year' is not a period", "2020-W05"),
    ],
)
def test_reports_failed_prediction(
    site: Site, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str, names: str, remedy: str
) -> None:
    """Predictions that cannot be used fail the run, and no file is written."""
    monkeypatch.setenv("FAULT", fault)
    refused(*_predict(site), "--out", tmp_path / "forecast.csv", names=names, remedy=remedy)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["train", "predict"])
def test_gives_reason_as_json(site: Site, refused: Refused, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """With --json a failure is one JSON object on stdout."""
    monkeypatch.setenv("FAULT", f"{command} raises")
    arguments = _train(site) if command == "train" else _predict(site)
    ended = refused(*arguments, "--json", names=f"on_{command} failed", remedy="log of the run")
    assert ("failed", "RunnerFailed") == (ended.json["status"], ended.json["error"]["type"])


def test_gives_diagnostics_as_json(site: Site, refused: Refused) -> None:
    """With --json the findings of validation are in the object, each with code and field."""
    arguments = [*_train(site, data=site.tables["future"]), "--json"]
    ended = refused(*arguments, names="missing_column", remedy="Add or rename")
    (found,) = ended.json["error"]["diagnostics"]
    assert ("error", "missing_column", "data.disease_cases") == (found["severity"], found["code"], found["field"])


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("exits with 1", r"train command exited with 1: .*\n(.*\n)*no rain fell"),
        ("hangs", "train command ran longer than 1 seconds and was stopped"),
    ],
)
def test_keeps_what_failed_train_command_left(
    site: Site, refused: Refused, monkeypatch: pytest.MonkeyPatch, fault: str, names: str
) -> None:
    """A train command that fails leaves a failed artifact, which cannot be predicted with."""
    monkeypatch.setenv("FAULT", fault)
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_SCRIPT_TIMEOUT_SECONDS", "1" if fault == "hangs" else "60")
    ended = refused(*_train(site, "shell"), names=names, remedy="artifacts download")
    failed = re.search(r"artifacts download (\w{26})", ended.err)[1]
    refused(*_predict(site, failed, model=model("shell")), names="training_artifact_failed", remedy="Train again")


@pytest.fixture(scope="module")
def shell_training(site: Site) -> str:
    shell = load_model(model("shell"))
    return shell.train(shell.config(), str(site.tables["training"])).artifact_id


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("exits with 1", r"predict command exited with 1: .*\n(.*\n)*no rain fell"),
        ("writes no file", r"exited with 0 but wrote no predictions\.csv"),
        ("writes garbage", r"predictions\.csv.*not UTF-8"),
        ("writes nothing", r"predictions\.csv is empty"),
        ("writes half", r"predictions\.csv.* line 3 has 2 values"),
    ],
)
def test_keeps_what_failed_predict_command_left(
    site: Site, shell_training: str, refused: Refused, monkeypatch: pytest.MonkeyPatch, fault: str, names: str
) -> None:
    """A predict command that fails, or writes no usable predictions, leaves a failed artifact."""
    monkeypatch.setenv("FAULT", fault)
    ended = refused(*_predict(site, shell_training), names=names, remedy=r"artifacts download \w{26}")
    failed = re.search(r"artifacts download (\w{26})", ended.err)[1]
    kept = next(one for one in list_artifacts(open_resources().database, limit=5) if one.id == failed)
    assert ("failed", "prediction_workspace") == (kept.status, kept.kind)


def test_refuses_store_behind_a_file(
    site: Site, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that cannot be written fails the run, which is recorded as failed."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    blocked = tmp_path / "store"
    blocked.write_text("a file in the way")
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_URL", str(blocked))
    ended = cli(*_train(site))
    assert 2 == ended.code
    assert str(blocked) in ended.err
    assert "another storage URL" in ended.err
    assert "Traceback" not in ended.err
    assert "a file in the way" == blocked.read_text()
    assert ["failed"] == [run.status for run in list_runs(open_resources().database)]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond eight megabytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_reports_full_store(site: Site, refused: Refused, monkeypatch: pytest.MonkeyPatch, small_disk: None) -> None:
    """A store without room for the model fails the run, and nothing half-written is left."""
    monkeypatch.setenv("FAULT", "large")
    refused(*_train(site), names="The store .* cannot be written: File too large", remedy="set another storage URL")


def test_reports_full_temporary_folder(
    site: Site, refused: Refused, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A temporary folder without room for the data is named."""
    large = tmp_path / "large.csv"
    read_text_table(site.tables["training"]).assign(note="x" * 500_000).to_csv(large, index=False)
    request.getfixturevalue("small_disk")
    refused(*_train(site, data=large), names="cannot be copied to .*: File too large", remedy="TMPDIR")


def test_reports_locked_database(site: Site, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that another process holds is named once the wait is over."""
    file = tmp_path / "lineage.db"
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_DATABASE_URL", f"sqlite:///{file}?timeout=0.1")
    assert 0 == cli("runs", "list").code
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        ended = cli(*_train(site))
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert 2 == ended.code
    assert str(file) in ended.err
    assert "Wait for it to end" in ended.err
    assert "Traceback" not in ended.err
    assert [] == cli("runs", "list", "--json").json["runs"]


@pytest.mark.parametrize("command", ["train", "predict", "runs"])
def test_refuses_database_of_newer_version(
    site: Site, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A database that a newer version wrote is left as it is."""
    file = tmp_path / "lineage.db"
    with monkeypatch.context() as before:
        before.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_DATABASE_URL", f"sqlite:///{file}")
        assert 0 == cli("runs", "list").code
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = 'v9999'")
    connection.close()
    # Another URL of the same file: this process keeps the first one open.
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_DATABASE_URL", f"sqlite:///{file}?timeout=5")
    ended = cli(*{"train": _train(site), "predict": _predict(site), "runs": ["runs", "list"]}[command])
    assert 2 == ended.code
    assert "v9999" in ended.err
    assert "pip install -U chapkit-flows" in ended.err
    assert "Traceback" not in ended.err


def test_reports_server_that_does_not_answer(site: Site, refused: Refused) -> None:
    """A Prefect server that is down is named with its URL, and no run begins."""
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        ended = refused(
            *_train(site),
            "--json",
            names="http://127.0.0.1:9/api does not answer",
            remedy="prefect server start",
            began=False,
        )
    assert "ServerUnavailable" == ended.json["error"]["type"]
