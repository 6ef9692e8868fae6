"""Sweeps: each trial a run of its own, nothing tried twice, and what fails is told."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import MODELS, CommandLine, write_tables

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.store import Store
from chapkit_flows.errors import BacktestFailed, InvalidConfig, InvalidExperiment, InvalidSetting, InvalidSweep
from chapkit_flows.flows.sweep import describe_sweep
from chapkit_flows.lineage.experiments import find_experiment, list_experiments, load_trials
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import consumers, get_run, list_runs
from chapkit_flows.promotion import find_backtest
from chapkit_flows.ranking import Ranking, rank
from chapkit_flows.registry import register
from chapkit_flows.upkeep.rehearsal import rehearse

TRIED = MODELS.with_name("tried.py")
SETTINGS = "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_"
PLAN = {"periods": 2, "splits": 2}
pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the model writes down its calls."""
    file = tmp_path / "calls.txt"
    monkeypatch.setenv("CALLS", str(file))
    return file


@pytest.fixture
def data(calls: Path, tmp_path: Path) -> str:
    """Two places with twelve months."""
    return str(write_tables(tmp_path / "tables")["training"])


@pytest.fixture
def tried() -> Model:
    model = load_model(f"{TRIED}:tried")
    assert isinstance(model, Model)
    return model


def count_calls(calls: Path, word: str = "") -> int:
    """How often the model was called so far; the file is emptied."""
    text = calls.read_text() if calls.exists() else ""
    calls.write_text("")
    return sum(line.startswith(word) for line in text.splitlines())


def ranking(name: str) -> Ranking:
    resources = open_resources()
    return rank(resources, find_experiment(resources.database, name))


def shifts(name: str) -> list[Any]:
    """By trial in the order of their numbers the value that was tried, and how that ended."""
    resources = open_resources()
    found = load_trials(resources.database, find_experiment(resources.database, name))
    return [(run.config.content["shift"] if run.config else None, run.status) for _, run in found]


def test_each_trial_is_a_run(tried: Model, data: str, calls: Path, tmp_path: Path) -> None:
    """A trial is a backtest with a config version, scores and folds of its own, which its sweep has read; the best can
    be trained and promoted by its scores; none of it is lost with the database.
    """
    search = {"experiment": "shifts", "values": {"shift": [40, 0.0, 3]}, "description": "how far off?"}
    result = tried.sweep(tried.config(), data, search, plan=PLAN)
    assert ({"done": 3, "reused": 0, "failed": 0}, 12) == (result.trials, count_calls(calls))
    assert [(40.0, "completed"), (0.0, "completed"), (3.0, "completed")] == shifts("shifts")
    resources = open_resources()
    sweep = get_run(resources.database, result.run_id)
    found = ranking("shifts")
    alone = tried.backtest(tried.config(shift=found.rows[1].values["shift"]), data, plan=PLAN)
    assert ({"done": 2, "reused": 2, "failed": 0}, 0) == (alone.folds, count_calls(calls))
    trial = found.rows[1].run
    assert alone.metrics == {name: trial.metrics[name] for name in alone.metrics}
    assert ("backtest", sweep.id, {"shift": trial.config.content["shift"]}) == (  # type: ignore[union-attr]
        trial.flow, trial.parameters["sweep"], trial.parameters["values"],
    )  # fmt: skip
    assert [sweep.id] == [run.id for run in consumers(resources.database, trial.output("scores").id)]
    assert {"data", "trial"} == {edge.role for edge in sweep.inputs}
    best = found.best
    assert best is not None
    assert best.score == min(row.score for row in found.rows if row.score is not None) == sweep.metrics["best_crps"]
    assert result.best == {
        "run_id": best.run.id,
        "number": best.trial.number,
        "values": best.values,
        "score": best.score,
    }
    trained = tried.train(tried.config(shift=best.values["shift"]), data)
    assert best.run.id == find_backtest(resources, register(resources, trained.artifact_id, by="ana")).id
    assert [] == [act for act in rehearse(resources, tmp_path / "rehearsal") if not act.passed]
    _assert_told(describe_sweep(sweep, found), found)


def _assert_told(markdown: str, found: Ranking) -> None:
    assert "## tried: the experiment shifts" in markdown
    assert "how far off?" in markdown
    assert all(row.run.id in markdown for row in found.rows)
    assert "| trial | shift | CRPS |" in markdown
    assert found.baseline is not None
    assert all(row.compared is not None and row.compared.difference > 0 for row in found.rows[1:])


def test_nothing_is_tried_twice(tried: Model, data: str, calls: Path) -> None:
    """A sweep of an experiment that is there does what it has not tried yet; other folds are an experiment's own row,
    and compared by themselves.
    """
    search = {"experiment": "shifts", "values": {"shift": [0, 1]}}
    tried.sweep(tried.config(), data, search, plan=PLAN)
    count_calls(calls)
    more = tried.sweep(tried.config(), data, search | {"values": {"shift": [1, 2, 0]}}, plan=PLAN)
    assert ({"done": 3, "reused": 2, "failed": 0}, 4) == (more.trials, count_calls(calls))
    assert [0.0, 1.0, 2.0] == [shift for shift, _ in shifts("shifts")]
    other = tried.sweep(tried.config(), data, search, plan=PLAN | {"splits": 3})
    assert ({"done": 2, "reused": 0, "failed": 0}, 4) == (other.trials, count_calls(calls))
    found = ranking("shifts")
    assert ([4, 5], 3) == (sorted(row.trial.number for row in found.rows), found.left_out)


def test_a_config_has_one_row(tried: Model, data: str, calls: Path) -> None:
    """A config that was tried again with other baselines is ranked once, by its last run, and none is left out."""
    search = {"experiment": "once", "values": {"shift": [0, 1]}}
    tried.sweep(tried.config(), data, search, plan=PLAN)
    tried.sweep(tried.config(), data, search, plan=PLAN | {"baselines": ["persistence"]})
    found = ranking("once")
    assert ([4, 3], "persistence", 0) == ([row.trial.number for row in found.rows], found.baseline, found.left_out)


def test_a_metric_that_is_not_defined(tried: Model, data: str, calls: Path) -> None:
    """A trial whose forecasts have no value of a metric has not failed: of counts of 0 there is no error in percent."""
    table = pd.read_csv(data, dtype={"time_period": str}).assign(disease_cases=0)
    zeros = Path(data).with_name("zeros.csv")
    table.to_csv(zeros, index=False)
    search = {"experiment": "zeros", "values": {"shift": [0, 1]}, "metric": "mape"}
    result = tried.sweep(tried.config(), str(zeros), search, plan=PLAN | {"baselines": []})
    assert ({"done": 2, "reused": 0, "failed": 0}, {}) == (result.trials, result.best)
    resources = open_resources()
    _, rows = rank(resources, find_experiment(resources.database, "zeros"), "mape").cells()
    assert ["not defined", "not defined"] == [row[2] for row in rows]


def test_a_trial_that_fails_is_told(tried: Model, data: str, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial without any forecast is a failed run beside the others; one that lacks a fold is never the best; and a
    sweep again does only those.
    """
    periods = sorted(pd.read_csv(data, dtype=str)["time_period"].unique())
    tried.sweep(tried.config(), data, {"experiment": "shifts", "values": {"shift": [40, 41]}}, plan=PLAN)
    monkeypatch.setenv("FAIL_AT", periods[-3])
    half = tried.sweep(tried.config(), data, {"experiment": "shifts", "values": {"shift": [0, 40]}}, plan=PLAN)
    assert ({"done": 2, "reused": 1, "failed": 0}, 40.0) == (half.trials, half.best["values"]["shift"])
    assert "1 of 2" in [cell for row in ranking("shifts").cells()[1] for cell in row]
    values = {"shift": [0, 40], "additional_continuous_covariates": [[], ["wind"]]}
    mixed = tried.sweep(tried.config(), data, {"experiment": "mixed", "values": values}, plan=PLAN)
    assert {"done": 2, "reused": 0, "failed": 2} == mixed.trials
    errors = [row.run.error for row in ranking("mixed").rows if row.run.status == "failed"]
    assert len(errors) == 2
    assert all("additional_covariates_not_allowed" in str(error) for error in errors)
    with pytest.raises(BacktestFailed, match=r"None of the 2 trials could be done.*no rain fell"):
        tried.sweep(
            tried.config(), data, {"experiment": "none", "values": {"shift": [5, 6]}}, plan=PLAN | {"splits": 1}
        )
    assert [(5.0, "failed"), (6.0, "failed")] == shifts("none")
    monkeypatch.delenv("FAIL_AT")
    count_calls(calls)
    again = tried.sweep(tried.config(), data, {"experiment": "shifts", "values": {"shift": [0, 40]}}, plan=PLAN)
    assert ({"done": 2, "reused": 1, "failed": 0}, 0.0, 2) == (
        again.trials, again.best["values"]["shift"], count_calls(calls),
    )  # fmt: skip
    assert 3 == len(ranking("shifts").rows)


def test_sweep_that_was_killed_is_gone_on_with(tried: Model, data: str, calls: Path, home: Path) -> None:
    """What a sweep has left that died after its first trial, another finds: the trial, and the folds of the others."""
    search = {"experiment": "shifts", "values": {"shift": [0, 1]}}
    tried.sweep(tried.config(), data, search, plan=PLAN)
    resources = open_resources()
    first, second = load_trials(resources.database, find_experiment(resources.database, "shifts"))
    with resources.database.write() as session:
        session.connection().exec_driver_sql(f"DELETE FROM lineage_trial WHERE id = '{second[0].id}'")
    count_calls(calls)
    again = tried.sweep(tried.config(), data, search, plan=PLAN)
    assert ({"done": 2, "reused": 1, "failed": 0}, 0) == (again.trials, count_calls(calls))
    assert first[1].id in {row.run.id for row in ranking("shifts").rows}
    running = list_runs(resources.database, status="running")
    assert [] == running


def test_optuna_proposes_the_same_again(tried: Model, data: str, calls: Path) -> None:
    """Equal seeds give equal trials, so that a sweep run again only goes on; each value is within its range."""
    values = {"shift": "-5:5", "additional_continuous_covariates": [[]]}
    search = {"experiment": "tuned", "values": values, "sampler": "optuna", "trials": 3, "batch": 2, "seed": 7}
    first = tried.sweep(tried.config(), data, search, plan=PLAN | {"splits": 1, "baselines": ()})
    assert ({"done": 3, "reused": 0, "failed": 0}, 6) == (first.trials, count_calls(calls))
    proposed = shifts("tuned")
    assert all(-5 <= shift <= 5 for shift, _ in proposed)
    more = tried.sweep(tried.config(), data, search | {"trials": 4}, plan=PLAN | {"splits": 1, "baselines": ()})
    assert ({"done": 4, "reused": 3, "failed": 0}, 2) == (more.trials, count_calls(calls))
    assert proposed == shifts("tuned")[:3]


def test_each_trial_is_looked_up_once(tried: Model, data: str, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search of many small batches asks the database for its past once, and the store for what it proposes alone."""
    asked: list[str] = []
    read: list[str] = []
    monkeypatch.setattr(Store, "claim", _counted(Store.claim, asked))
    monkeypatch.setattr("chapkit_flows.flows.sweep.load_trials", _counted(load_trials, read))
    search = {"experiment": "many", "values": {"shift": "0:5"}, "sampler": "optuna", "batch": 1, "trials": 8}
    done = tried.sweep(tried.config(), data, search, plan=PLAN | {"splits": 1, "baselines": ()})
    assert {"done": 8, "reused": 0, "failed": 0} == done.trials
    assert (1, True) == (len(read), len(asked) <= 3 * 8)  # each of eight asking for all before it: 28 more


def _counted(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(function.__name__)
        return function(*arguments, **named)

    return counted


def test_twins_that_fail_count_as_two(tried: Model, data: str, calls: Path) -> None:
    """Of two configs that come to the same, and of which neither can be tried, both are counted as failed."""
    tried.config(shift=1.0).save("good")
    for name in ("bad", "as-bad"):
        tried.config(additional_continuous_covariates=["wind"]).save(name)
    search = {"experiment": "twins", "configs": ["bad", "as-bad", "good"]}
    result = tried.sweep(tried.config(), data, search, plan=PLAN)
    assert ({"done": 2, "reused": 0, "failed": 2}, 3) == (result.trials, len(shifts("twins")))


def test_no_secret_is_told(data: str, calls: Path, home: Path) -> None:
    """What a validator of the config repeats of a secret is in no row, no manifest and no error."""
    model = load_model(f"{MODELS.with_name('guarded.py')}:guarded")
    assert isinstance(model, Model)
    found = model.sweep(model.config(), data, {"experiment": "guarded", "values": {"shift": [0, 9]}}, plan=PLAN)
    assert {"done": 1, "reused": 0, "failed": 1} == found.trials
    (failed,) = [row.run for row in ranking("guarded").rows if row.run.error]
    assert "shift = 9: config: Value error, ********** allows no shift above 5" == failed.error
    assert [] == [file for file in home.rglob("*") if file.is_file() and b"hush-hush" in file.read_bytes()]
    with pytest.raises(InvalidConfig) as refusal:
        model.sweep(model.config(), data, {"experiment": "x", "values": {"shift": [-1, 0]}}, plan=PLAN)
    assert "hush-hush" not in str(refusal.value)


def test_models_and_strategies_fan_out(tried: Model, data: str, calls: Path) -> None:
    """Several models are tried in one flow on the same folds; trained once, each config is trained once."""
    search = {"experiment": "models", "models": [f"{TRIED}:plain", "climatology"]}
    result = tried.sweep(tried.config(), data, search, plan=PLAN | {"strategy": "train_once"})
    assert {"done": 3, "reused": 0, "failed": 0} == result.trials
    assert 2 == count_calls(calls, "train")
    found = ranking("models")
    assert {"tried", "plain", "climatology"} == {row.run.model for row in found.rows}
    assert "model" in found.cells()[0]
    result = tried.sweep(
        tried.config(), data, {"experiment": "updated", "values": {"shift": [0, 1]}}, plan=PLAN | {"strategy": "update"}
    )
    assert 2 == count_calls(calls, "update")
    with pytest.raises(InvalidExperiment, match="models is about tried and plain and climatology"):
        load_model("persistence").sweep(  # type: ignore[attr-defined]
            load_model("persistence").config(), data, {"experiment": "models", "values": {"n_samples": [9]}}, plan=PLAN
        )


def test_other_processes_do_the_folds(tried: Model, data: str, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of all trials that are done in processes of their own give the same scores as in threads."""
    search = {"experiment": "shifts", "models": [f"{TRIED}:plain"], "values": {"shift": [0, 2]}}
    here = tried.sweep(tried.config(), data, search, plan=PLAN)
    monkeypatch.setenv(f"{SETTINGS}HOME", f"{Path(data).parent}/other")
    monkeypatch.setenv(f"{SETTINGS}TASK_RUNNER", "processes")
    monkeypatch.setenv(f"{SETTINGS}TASK_RUNNER_WORKERS", "2")
    other = Model(
        name=tried.name,
        config=tried.config,
        runner=tried.runner,
        required_covariates=tried.required_covariates,
        definition=tried.definition,
    )
    monkeypatch.setitem(other.definition.namespace, "tried", other)
    count_calls(calls)
    there = other.sweep(other.config(), data, search, plan=PLAN)
    assert 16 == count_calls(calls)
    assert (here.trials, here.best["score"]) == (there.trials, there.best["score"])


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"values": {"shfit": [1]}}, InvalidSweep, "tried: shfit is not a field of TriedConfig; did you mean shift"),
        ({"values": {"shift": ["far"]}}, InvalidConfig, "tried: shift = far does not fit"),
        ({"values": {}}, InvalidSweep, "nothing to choose between"),
        ({"values": {"shift": "0:1"}}, InvalidSweep, "a range, of which a grid cannot try all"),
        ({"values": {"shift": list(range(1001))}}, InvalidSweep, "1001 combinations; at most 1000"),
        ({"sampler": "optuna", "trials": 0}, InvalidSweep, "trials is 0; write 1 to 1000"),
        ({"sampler": "optuna", "batch": 0}, InvalidSweep, "batch is 0"),
        ({"sampler": "optuna", "seed": -1}, InvalidSweep, "seed is -1"),
        ({"trials": 3}, InvalidSweep, "trials is for the sampler optuna"),
        ({"metric": "coverage_90"}, InvalidSweep, "coverage_90 has no best"),
        ({"experiment": "a/b"}, InvalidExperiment, "cannot be the name"),
        ({"models": [f"{TRIED}:tried"]}, InvalidSweep, "named twice"),
        ({"configs": ["rain-config/a"]}, InvalidSweep, "of none of the models"),
    ],
)
def test_refused_sweeps(
    tried: Model, data: str, calls: Path, changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    """What cannot be swept is refused before a model is called, and begins no experiment."""
    with pytest.raises(error) as refusal:
        tried.sweep(tried.config(), data, {"experiment": "x", "values": {"shift": [0, 1]}} | changed, plan=PLAN)
    assert words in str(refusal.value)
    assert (0, []) == (count_calls(calls), list_experiments(open_resources().database))


def test_optuna_that_is_not_installed(tried: Model, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Optuna its sampler is refused with what to install."""
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    search = {"experiment": "x", "values": {"shift": "0:1"}, "sampler": "optuna"}
    with pytest.raises(InvalidSetting, match=r'pip install "chapkit-flows\[optuna\]"'):
        tried.sweep(tried.config(), data, search, plan=PLAN)


def test_the_run_form(tried: Model) -> None:
    """The form of a deployed sweep has a described field for each thing that one may choose."""
    schema = tried.sweep.parameters.model_dump()
    assert ["config", "data", "search", "geo", "plan"] == list(schema["properties"])
    search = schema["definitions"]["SweepPlan"]
    assert ["experiment"] == search["required"]
    assert all(field.get("description") for field in search["properties"].values())
    assert "Which values to try" in schema["properties"]["search"]["description"]


def test_command_line(data: str, calls: Path, cli: CommandLine) -> None:
    """A sweep prints its trials side by side, and what to do with the best; the experiment shows the same again."""
    given = ("sweep", f"{TRIED}:tried", "--data", data, "--experiment", "shifts", "--periods", "2", "--splits", "2")
    done = cli(*given, "--set", "shift=0,3")
    assert 0 == done.code, done.err
    assert "trial   shift  CRPS" in done.out
    assert "To use the best, trial " in done.out
    assert f"{TRIED.name}:tried --data {data} --set shift=" in done.out
    assert "2 done, 0 of them before or alike, 0 failed" in done.out
    shown = cli("experiments", "show", "shifts")
    assert done.out.split("\n\nTrials of")[0] in shown.out
    (listed,) = cli("experiments", "list", "--json").json["experiments"]
    assert ("shifts", ["tried"], 2) == (listed["name"], listed["models"], listed["trials"])
    found = cli("experiments", "show", "shifts", "--json").json
    assert (["shift"], 2) == (found["varying"], len(found["trials"]))
    compared = cli("compare", "experiment:shifts")
    assert (1, True) == (compared.code, "config  shift" in compared.out)
    assert 2 == cli("compare", "experiment:shfits").code
    failed = cli(*given, "--set", "additional_continuous_covariates=[],[wind]", "--json")
    assert (1, {"done": 1, "reused": 1, "failed": 1}) == (failed.code, failed.json["trials"])
    said = cli("experiments", "show", "shifts").out
    assert "Trial 3 failed: ValidationFailed: missing_covariate: data has no column" in said


def test_the_command_for_the_best(tried: Model, data: str, calls: Path, cli: CommandLine) -> None:
    """The command that is printed trains with the whole config of the best trial, also with what was not tried."""
    config = tried.config(prediction_periods=2, region="the north")
    tried.sweep(config, data, {"experiment": "shifts", "values": {"shift": [0, 3]}}, plan=PLAN)
    told = cli("experiments", "show", "shifts").out
    trained = cli(*shlex.split(told.split("promote it:\n")[1].splitlines()[0])[1:], "--json")
    assert 0 == trained.code, trained.err
    best, used = ranking("shifts").best, get_run(open_resources().database, trained.json["run_id"]).config
    assert best is not None and best.run.config is not None and used is not None
    assert best.run.config.digest == used.digest


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--set", "shift="), "shift has no values"),
        (("--set", "shift=1,,2"), "--set shift=1,,2: not readable YAML"),
        (("--set", "shift"), "write it as key=value"),
        (("--set", "shift=1", "--set", "shift=2"), "--set shift is given twice"),
        (("--set", "shift=0:3"), "Choose the sampler optuna"),
        (("--set", "shift=0,3", "--experiment", "🦟"), "cannot be the name of an experiment"),
        (("--set", "shift=0,3", "--metric", "nope"), "No metric 'nope'"),
    ],
)
def test_refused_commands(data: str, calls: Path, cli: CommandLine, given: tuple[str, ...], words: str) -> None:
    """A sweep that cannot be made is refused with exit code 2, and no run is recorded."""
    done = cli("sweep", f"{TRIED}:tried", "--data", data, "--experiment", "x", *given)
    assert 2 == done.code
    assert words in done.err
    runs: list[RunFact] = list_runs(open_resources().database)
    assert [] == runs
    assert 2 == cli("experiments", "show", "x").code
