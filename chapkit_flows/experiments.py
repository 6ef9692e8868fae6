"""Experiments that outlive the database: what belongs to them is also kept beside the objects."""

from __future__ import annotations

from typing import Any

from chapkit_flows.lineage import experiments
from chapkit_flows.lineage.experiments import Experiment, Trial, load_trials
from chapkit_flows.resources import Resources

EXPERIMENTS = "experiments"


def open_experiment(resources: Resources, wanted: Experiment) -> Experiment:
    """As `lineage.experiments.open_experiment`, with a manifest."""
    experiment = experiments.open_experiment(resources.database, wanted)
    _keep(resources, experiment)
    return experiment


def add_trial(resources: Resources, experiment: Experiment, run_id: str, *, identity: str) -> Trial:
    """As `lineage.experiments.add_trial`, with a manifest that is there before the row."""

    def keep(trial: Trial) -> None:
        _write(resources, trial.id, experiment, trial)

    return experiments.add_trial(resources.database, experiment, run_id, identity=identity, keep=keep)


def _keep(resources: Resources, experiment: Experiment) -> None:
    """Write what has no manifest yet; also what a process has recorded that died before it wrote this."""
    there = set(resources.store.manifest_names(EXPERIMENTS))
    documents: dict[str, Trial | None] = {experiment.id: None}
    documents |= {trial.id: trial for trial, _ in load_trials(resources.database, experiment)}
    for key, trial in documents.items():
        if f"{EXPERIMENTS}/{key}" not in there:
            _write(resources, key, experiment, trial)


def _write(resources: Resources, key: str, experiment: Experiment, trial: Trial | None) -> None:
    # Each with a document of its own: so nobody writes over what another has written.
    document: dict[str, Any] = {"experiment": experiment.to_dict(), "trial": trial and trial.to_dict()}
    resources.store.write_manifest(f"{EXPERIMENTS}/{key}", document)
