"""Backtests with vintages: a model sees what was known, and its report says what revised data would have promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import MODELS, CommandLine

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.data.periods import period_end, period_from_ordinal, period_ordinal
from chapkit_flows.errors import ArtifactDeleted, EvaluationError, ValidationFailed
from chapkit_flows.flows.evaluations import describe_backtest
from chapkit_flows.flows.pictures import Shown
from chapkit_flows.lineage.facts import Edge, Outcome, RunFact
from chapkit_flows.lineage.query import get_run
from chapkit_flows.refs import ArtifactRef, new_id
from chapkit_flows.testing.facts import make_reading, record_run
from chapkit_flows.upkeep.trash import delete

SEEN = MODELS.with_name("seen.py")
MONTHS = [period_from_ordinal(period_ordinal("2018-01") + step, "monthly") for step in range(24)]
PLAN = {"periods": 2, "splits": 3, "pictures": False, "baselines": ()}
pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the model writes down its calls."""
    file = tmp_path / "calls.txt"
    monkeypatch.setenv("CALLS", str(file))
    return file


@pytest.fixture
def seen(calls: Path) -> Model:
    model = load_model(f"{SEEN}:seen")
    assert isinstance(model, Model)
    return model


def reports(*lags: int) -> pd.DataFrame:
    """Two places whose months are reported after each of the lags; all numbers are the day on which they were known."""
    rows = []
    for month in MONTHS:
        for lag in lags:
            day = period_end(month) + timedelta(days=lag)
            rows += [(month, place, float(day.toordinal()), day.isoformat()) for place in "ab"]
    frame = pd.DataFrame(rows, columns=["time_period", "location", "disease_cases", "known_at"])
    return frame.assign(rainfall=frame["disease_cases"])


def write(frame: pd.DataFrame, file: Path) -> str:
    frame.to_csv(file, index=False)
    return str(file)


def frame_of(artifact: ArtifactRef) -> pd.DataFrame:
    return load(open_resources().store, artifact)


def recorded(run_id: str) -> RunFact:
    return get_run(open_resources().database, run_id)


def truth_of(frame: pd.DataFrame) -> pd.DataFrame:
    newest = frame.sort_values("known_at", kind="stable").drop_duplicates(["time_period", "location"], keep="last")
    return newest.drop(columns="known_at").sort_values(["location", "time_period"])


@pytest.mark.parametrize(
    ("strategy", "covariates"),
    [("refit", "climatology"), ("train_once", "climatology"), ("update", "persistence")],
)
def test_nothing_that_was_known_later_reaches_the_model(
    seen: Model, calls: Path, tmp_path: Path, strategy: str, covariates: str
) -> None:
    """Until it is tried on revised data, the model is given no number that was known after the day of its origin."""
    data = write(reports(10, 40, 300), tmp_path / "data.csv")
    plan = PLAN | {"strategy": strategy, "covariates": covariates}
    result = seen.backtest(seen.config(), data, plan=plan, vintages={"delay_days": 12})
    run = recorded(result.run_id)
    lines = [line.split() for line in calls.read_text().splitlines()]
    honest, revised = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert [line[0] for line in honest] == [line[0] for line in revised]
    assert {"refit": 6, "train_once": 4, "update": 6}[strategy] == len(honest)
    for _, origin, largest in honest:
        last = period_end(origin)
        # The first report, after ten days; the second one of it comes after the forecast.
        assert (last + timedelta(days=10)).toordinal() == float(largest)
    assert all(float(largest) > (period_end(origin) + timedelta(days=12)).toordinal() for _, origin, largest in revised)
    assert {"delay_days": 12, "truth_lag_days": None} == run.parameters["vintages"]


def test_both_scores_are_right(seen: Model, tmp_path: Path) -> None:
    """The scores are of a model that was given what was known, the others those of a backtest on the newest rows."""
    random = np.random.default_rng(3)
    frame = reports(10, 40, 300)
    frame = frame.assign(disease_cases=random.poisson(50, len(frame)).astype("float64"))
    newest = truth_of(frame)
    plain = seen.backtest(seen.config(), write(newest, tmp_path / "newest.csv"), plan=PLAN)
    result = seen.backtest(seen.config(), write(frame, tmp_path / "data.csv"), plan=PLAN, vintages={"delay_days": 12})
    run = recorded(result.run_id)
    revised = run.output("revised_scores")
    pd.testing.assert_frame_equal(frame_of(recorded(plain.run_id).output("scores")), frame_of(revised))
    scores = frame_of(run.output("scores"))
    truth = newest.set_index(["time_period", "location"])["disease_cases"]
    for row in scores.itertuples():
        day = (period_end(row.origin) + timedelta(days=12)).isoformat()
        known = truth_of(frame[(frame["known_at"] <= day) & (frame["time_period"] <= row.origin)])
        median = known.loc[known["location"] == row.location, "disease_cases"].mean() + 2
        assert abs(truth[row.time_period, row.location] - median) == pytest.approx(row.mae)
    assert scores["mae"].mean() == pytest.approx(result.metrics["mae"])
    assert frame_of(revised)["mae"].mean() == pytest.approx(result.metrics["revised_mae"])
    ratio = frame_of(revised)["mae"].mean() / scores["mae"].mean()
    assert 1 - ratio == pytest.approx(result.metrics["optimism_mae"])
    assert result.vintages is not None
    assert ["crps", "crps_log1p", "wis", "mae"] == [row["metric"] for row in result.vintages["optimism"]]

    used = [edge.artifact for edge in run.inputs if edge.role == "vintage"]
    assert {row["dataset"] for row in result.vintages["known"]} == {artifact.id for artifact in used}
    for row, artifact in zip(result.vintages["known"], used, strict=True):
        known = truth_of(frame[(frame["known_at"] <= row["known_by"]) & (frame["time_period"] <= row["origin"])])
        pd.testing.assert_frame_equal(known.reset_index(drop=True), frame_of(artifact), check_like=True)


def test_more_vintages_leave_finished_folds_alone(seen: Model, calls: Path, tmp_path: Path) -> None:
    """When later values are added to the table, the forecasts of what was known before are not made again."""
    frame = reports(10, 40)
    data = tmp_path / "data.csv"
    seen.backtest(seen.config(), write(frame, data), plan=PLAN, vintages={"delay_days": 12})
    calls.unlink()
    later = frame.tail(2).assign(known_at="2021-01-01", disease_cases=7.0)
    again = seen.backtest(seen.config(), write(pd.concat([frame, later]), data), plan=PLAN, vintages={"delay_days": 12})
    assert {"done": 3, "reused": 3, "failed": 0} == again.folds
    # Only those on revised data, of which some is new.
    assert 6 == len(calls.read_text().splitlines())


def test_baselines_know_no_more(seen: Model, tmp_path: Path) -> None:
    """Baselines forecast from the vintages too; another truth gives them other scores, though their folds are known."""
    frame = reports(10, 40)
    frame = frame.assign(disease_cases=np.where(frame["known_at"] > "2019-11-20", 1e6, 3.0))
    data = write(frame, tmp_path / "data.csv")
    plan = PLAN | {"baselines": ("persistence",)}
    means = {}
    for lag in (None, 11):
        given = {"delay_days": 12, "truth_lag_days": lag}
        run = recorded(seen.backtest(seen.config(), data, plan=plan, vintages=given).run_id)
        table = frame_of(run.output("baseline_scores"))
        means[lag] = table.loc[table["origin"] == "2019-08", "crps"].mean()
    # All that was known of 2019-09 and 2019-10 by the middle of November is 3, as before.
    assert 0 == means[11]
    assert means[None] > 0


def test_baselines_are_scored_anew_with_another_truth(seen: Model, tmp_path: Path) -> None:
    """A correction of what was known at the lag, and of nothing else, gives baselines other scores."""
    frame = reports(10, 40, 300)
    corrected = frame.copy()
    corrected.loc[(frame["time_period"] == "2019-12") & (frame["known_at"] == "2020-02-09"), "disease_cases"] = 9e6
    plan, given = PLAN | {"baselines": ("persistence",)}, {"delay_days": 12, "truth_lag_days": 45}
    found = []
    for table in (frame, corrected):
        data = write(table, tmp_path / "data.csv")
        run = recorded(seen.backtest(seen.config(), data, plan=plan, vintages=given).run_id)
        found.append([frame_of(run.output(role))["crps"].max() for role in ("scores", "baseline_scores")])
    (_, before), (own, after) = found
    assert before < 1e6 < min(own, after)


def test_truth_at_a_lag(seen: Model, tmp_path: Path) -> None:
    """With a lag the truth of each period is its value of so many days after its end, for both kinds of scores."""
    data = write(reports(10, 40, 300), tmp_path / "data.csv")
    result = seen.backtest(seen.config(), data, plan=PLAN, vintages={"delay_days": 12, "truth_lag_days": 45})
    run = recorded(result.run_id)
    for artifact, lags in ((run.output("scores"), 10), (run.output("revised_scores"), 300)):
        for row in frame_of(artifact).itertuples():
            learnt = reports(10, 40, 300)
            day = (period_end(row.origin) + timedelta(days=12 if lags == 10 else 10_000)).isoformat()
            known = truth_of(learnt[(learnt["known_at"] <= day) & (learnt["time_period"] <= row.origin)])
            median = known.loc[known["location"] == row.location, "disease_cases"].mean() + 2
            truth = (period_end(row.time_period) + timedelta(days=40)).toordinal()
            assert abs(truth - median) == pytest.approx(row.mae)
    with pytest.raises(ValidationFailed, match="no_truth"):
        seen.backtest(seen.config(), data, plan=PLAN, vintages={"delay_days": 12, "truth_lag_days": 5})


def test_nothing_of_the_origin_is_known(
    seen: Model, calls: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a delay the last months are not reported: they are there, empty, and the run says so."""
    data = write(reports(10, 40), tmp_path / "data.csv")
    result = seen.backtest(seen.config(), data, plan=PLAN, vintages={})
    assert result.vintages is not None
    assert [0, 0, 0] == [row["reported"] for row in result.vintages["known"]]
    assert "On 2019-10-31 no place had reported 2019-10 yet" in caplog.text
    (_, origin, largest) = calls.read_text().splitlines()[0].split()
    assert ("2019-08", datetime(2019, 8, 10).toordinal()) == (origin, float(largest))


def record_vintages(uri: Path, frame: pd.DataFrame, lags: range) -> list[str]:
    """As if a run had read the URI ten days after the end of each month, when it held what was known by then."""
    resources, made = open_resources(), []
    for month in MONTHS[lags.start : lags.stop]:
        day = period_end(month) + timedelta(days=10)
        content = truth_of(frame[frame["known_at"] <= day.isoformat()]).to_csv(index=False).encode()
        stored = resources.store.put(BytesIO(content))
        artifact = ArtifactRef(
            id=new_id(), kind="dataset", digest=stored.digest, size=stored.size, media_type="text/csv",
            metadata={"name": f"{month}.csv"},
        )  # fmt: skip
        edge = Edge(role="data", artifact=artifact)
        moment = datetime(day.year, day.month, day.day, 8, tzinfo=UTC)
        reading = make_reading(str(uri), edge, id=f"{MONTHS.index(month):026d}", read_at=moment)
        record_run(resources.database, Outcome(status="completed", inputs=(edge,), readings=(reading,)))
        made.append(artifact.id)
    return made


def test_readings_of_a_uri_are_vintages(seen: Model, calls: Path, tmp_path: Path) -> None:
    """Without a column each fold is given the dataset that the URI had brought by then; the newest is the truth."""
    frame = reports(10, 40)
    uri = tmp_path / "data.csv"
    vintages = record_vintages(uri, frame, range(16, 23))
    data = write(truth_of(frame), uri)
    result = seen.backtest(seen.config(), data, plan=PLAN, vintages={"delay_days": 12})
    assert result.vintages is not None
    known = {row["origin"]: row["dataset"] for row in result.vintages["known"]}
    assert dict(zip(MONTHS[19:22], vintages[3:6], strict=True)) == known
    run = recorded(result.run_id)
    assert set(known.values()) == {edge.artifact.id for edge in run.inputs if edge.role == "vintage"}
    for word, origin, largest in (line.split() for line in calls.read_text().splitlines()[:6]):
        assert (word, (period_end(origin) + timedelta(days=10)).toordinal()) == (word, float(largest))
    plain = seen.backtest(seen.config(), data, plan=PLAN)
    assert 3 == plain.folds["reused"]  # of those on revised data
    settled = seen.backtest(seen.config(), data, plan=PLAN, vintages={"delay_days": 12, "truth_lag_days": 11})
    assert settled.metrics["mae"] < result.metrics["mae"]

    delete(open_resources(), [known["2019-09"]], actor="test", reason="test")
    with pytest.raises(ArtifactDeleted, match="artifacts restore"):
        seen.backtest(seen.config(), data, plan=PLAN, vintages={"delay_days": 12})


def test_places_that_are_gone_and_tables_of_no_use(
    seen: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A place that the newest dataset lacks is not scored; a reading that brought no panel is left out, and named."""
    frame = reports(10, 40)
    uri = tmp_path / "data.csv"
    record_vintages(uri, frame, range(16, 21))
    record_vintages(uri, frame.assign(location=""), range(21, 22))
    data = write(truth_of(frame[frame["location"] == "a"]), uri)
    result = seen.backtest(seen.config(), data, plan=PLAN, vintages={"delay_days": 12})
    scores = frame_of(recorded(result.run_id).output("scores"))
    assert {"a"} == set(scores.loc[scores["excluded"] == "", "location"])
    assert {"missing_truth"} == set(scores.loc[scores["location"] == "b", "excluded"])
    assert "is left out of the vintages: data has 22 rows without a location" in caplog.text


def no_column(frame: pd.DataFrame) -> pd.DataFrame:
    return truth_of(frame)


def early(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(known_at="2017-12-31")


def doubled(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.head(1)])


def late(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(known_at=frame["known_at"].clip(lower="2019-10-01"))


def two_clocks(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(known_at=frame["known_at"] + np.where(frame["location"] == "a", "T08:00Z", "T08:00"))


def gap(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["time_period"] != "2018-05"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_column, "no_vintages: .*has no column known_at, issue or as_of.*run train or retrain from this URI"),
        (early, "known_before_period: data has 48 rows.*known at 2017-12-31"),
        (doubled, "duplicate_vintage: data has 1 rows too many"),
        (late, "origin_before_vintages: On 2019-08-31, .*the first vintage is of 2019-10-01. Ask for fewer"),
        (two_clocks, "mixed_time_zones"),
        (gap, "gap_in_periods"),
    ],
)
def test_refused_vintages(seen: Model, calls: Path, tmp_path: Path, change: Any, words: str) -> None:
    """What cannot be a series of vintages is refused with the row or the remedy, before the model is called."""
    data = write(change(reports(10)), tmp_path / "data.csv")
    with pytest.raises(ValidationFailed, match=words):
        seen.backtest(seen.config(), data, plan=PLAN, vintages={})
    assert not calls.exists()


@pytest.mark.parametrize(
    ("plan", "vintages", "words"),
    [
        ({"covariates": "observed"}, {}, "only what was known at its origin"),
        ({}, {"delay_days": -1}, "delay_days is -1"),
        ({}, {"truth_lag_days": -1}, "truth_lag_days is -1"),
    ],
)
def test_refused_vintage_plans(seen: Model, plan: dict[str, Any], vintages: dict[str, Any], words: str) -> None:
    """A plan that would use what nobody knew, or a negative number of days, is refused."""
    with pytest.raises(EvaluationError, match=words):
        seen.backtest(seen.config(), "data.csv", plan=PLAN | plan, vintages=vintages)


def test_command_and_report(calls: Path, tmp_path: Path, cli: CommandLine) -> None:
    """The command prints both scores and what was known at each origin; so do the page in Prefect and the report."""
    data = write(reports(10, 300), tmp_path / "data.csv")
    asked = [
        "backtest",
        f"{SEEN}:seen",
        "--data",
        data,
        "--periods",
        2,
        "--splits",
        2,
        "--no-pictures",
        "--no-baselines",
    ]
    done = cli(*asked, "--vintages", "--delay", 12)
    assert (0, "") == (done.code, done.err if done.code else "")
    words = (
        "used only what was known 12 days after the last day of its origin. The truth is what is known now.",
        "Origin   Known by    Origin reported by  Its value then, of that now  Values revised since",
        "2019-10  2019-11-12  2 of 2 places       100%",
        "Metric                   As known then  Revised data  Difference",
    )
    assert [word for word in words if word not in done.out] == []
    told = cli(*asked, "--vintages", "--delay", 12, "--truth-lag", 400, "--json").json
    assert {"delay_days": 12, "truth_lag_days": 400} == {
        name: told["vintages"][name] for name in list(told["vintages"])[:2]
    }
    run = recorded(told["run_id"])
    page = describe_backtest(run, Shown(scores=frame_of(run.output("scores"))))
    assert "### How optimistic revised data are" in page
    assert "what was known 400 days after the last day of a period" in page
    assert "| 2019-10 | 2019-11-12 | 2 of 2 places |" in page
    report = tmp_path / "report.html"
    assert 0 == cli("report", told["run_id"], "--out", report).code
    text = report.read_text()
    assert all(part in text for part in ("How optimistic revised data are", "<td>2019-11-12</td>", "400 days"))
    assert "As vintage it has seen" not in text

    other = cli(*asked, "--delay", 12)
    assert (2, True) == (other.code, "Give it together with --vintages" in other.err)
    plain = cli(*asked)
    assert (2, True) == (plain.code, "A backtest with vintages takes them all" in plain.err)
