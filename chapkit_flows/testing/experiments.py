"""The contract of a lineage database that keeps experiments. Define a fixture `database`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier

import pytest

from chapkit_flows.errors import ExperimentNotFound, InvalidExperiment
from chapkit_flows.lineage import experiments
from chapkit_flows.lineage.dump import dump, load_dump
from chapkit_flows.lineage.engine import Database, open_database
from chapkit_flows.lineage.experiments import Experiment, Trial, experiment_from_dict, trial_from_dict
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.record import restore_runs
from chapkit_flows.refs import digest_of, new_id
from chapkit_flows.testing.facts import make_training, record_run

IDENTITY = digest_of(b"folds")


def make_experiment(name: str = "lags", *models: str) -> Experiment:
    """An experiment about some models."""
    return Experiment(name=name, models=models or ("rain",), description="how long a memory?", author="ana")


def add_runs(database: Database, experiment: Experiment, count: int) -> list[tuple[Trial, RunFact]]:
    """Record some runs in an experiment."""
    runs = [record_run(database, make_training(workspace=f"model {new_id()}")) for _ in range(count)]
    return [(experiments.add_trial(database, experiment, run.id, identity=IDENTITY), run) for run in runs]


class ExperimentContract:
    """Experiments, and the runs in them."""

    def test_runs_are_numbered_per_experiment(self, database: Database) -> None:
        """Each experiment counts its runs from 1, and gives them back in that order with all that is known of them."""
        lags = experiments.open_experiment(database, make_experiment())
        other = experiments.open_experiment(database, make_experiment("other"))
        added = add_runs(database, lags, 2)
        add_runs(database, other, 1)
        assert [trial.number for trial, _ in added] == [1, 2]
        assert added == experiments.load_trials(database, lags)
        assert [(other, 1), (lags, 2)] == experiments.list_experiments(database)
        assert lags == experiments.find_experiment(database, "lags") == experiment_from_dict(lags.to_dict())
        assert added[0][0] == trial_from_dict(added[0][0].to_dict())

    def test_a_name_goes_on(self, database: Database) -> None:
        """The name of an experiment leads to it again, for some or all of its models, and is not for others."""
        begun = experiments.open_experiment(database, make_experiment("lags", "rain", "dry"))
        assert begun == experiments.open_experiment(database, make_experiment("lags", "dry"))
        with pytest.raises(InvalidExperiment, match=r"lags is about rain and dry, begun .* by ana: wet cannot join"):
            experiments.open_experiment(database, make_experiment("lags", "rain", "wet"))
        assert [(begun, 0)] == experiments.list_experiments(database)

    def test_names_that_are_no_experiment(self, database: Database) -> None:
        """A name with anything but lower-case letters, digits, - and _ is refused, and nothing is begun."""
        for name in ("", "a/b", "Lags", "🦟", "x" * 300, "-a", "a b", "é", "a\n"):
            with pytest.raises(InvalidExperiment, match="cannot be the name of an experiment"):
                experiments.open_experiment(database, make_experiment(name))
            with pytest.raises(ExperimentNotFound, match="experiments list"):
                experiments.find_experiment(database, name)
        assert experiments.list_experiments(database) == []

    def test_sweeps_at_once(self, database: Database) -> None:
        """Whoever begins one experiment and adds runs at once gets the same one, and numbers without gaps."""
        runs = [record_run(database, make_training(workspace=f"model {number}")).id for number in range(4)]
        gate = Barrier(4)

        def race(run_id: str) -> tuple[str, int]:
            gate.wait()
            experiment = experiments.open_experiment(database, make_experiment())
            return experiment.id, experiments.add_trial(database, experiment, run_id, identity=IDENTITY).number

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(race, runs))
        assert (len({one for one, _ in found}), sorted(number for _, number in found)) == (1, [1, 2, 3, 4])

    def test_experiments_come_back(self, database: Database) -> None:
        """Experiments recorded from their documents, or loaded from a dump, give the same database."""
        lags = experiments.open_experiment(database, make_experiment())
        added = add_runs(database, lags, 2)
        other, third = open_database("sqlite://"), open_database("sqlite://")
        try:
            restore_runs(other, [run for _, run in added])
            trials = [trial for trial, _ in added]
            assert experiments.restore_experiments(other, [lags], trials) == 3
            assert experiments.restore_experiments(other, [lags], trials) == 0
            load_dump(third, dump(database))
            assert sorted(dump(database)) == sorted(dump(other)) == sorted(dump(third))
        finally:
            other.close()
            third.close()

    def test_a_name_that_was_begun_twice(self, database: Database) -> None:
        """What was lost with a database joins the experiment that was begun under its name since, in order of time."""
        lags = experiments.open_experiment(database, make_experiment())
        ((trial, run),) = add_runs(database, lags, 1)
        lost = replace(lags, id=new_id(), created_at=lags.created_at - timedelta(days=1))
        early = replace(trial, id=new_id(), experiment_id=lost.id, added_at=trial.added_at - timedelta(days=1))
        assert experiments.restore_experiments(database, [lost], [early]) == 1
        numbers = [(one.number, one.id) for one, _ in experiments.load_trials(database, lags)]
        assert numbers == [(1, early.id), (2, trial.id)]
        assert run == experiments.load_trials(database, lags)[1][1]
        assert experiments.restore_experiments(database, [lost], [early]) == 0
