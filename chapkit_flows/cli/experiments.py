"""The commands that try many configs and models, and say which is best: sweep, experiments list, experiments show."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from chapkit_flows.cli.changes import read_values, split_change
from chapkit_flows.cli.evaluations import read_plan
from chapkit_flows.cli.output import print_facts, print_json, print_line, print_table, say, show_error, when
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import recorded_run, run_here, watched
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.diff import write_value
from chapkit_flows.configs.documents import load_config
from chapkit_flows.configs.spaces import is_range
from chapkit_flows.errors import ChapkitFlowsError, InvalidConfig, InvalidSweep
from chapkit_flows.flows.model import Model
from chapkit_flows.flows.searches import SweepPlan, read_contestants
from chapkit_flows.lineage.experiments import find_experiment, list_experiments
from chapkit_flows.models.masking import MASK
from chapkit_flows.ranking import Ranked, Ranking, rank
from chapkit_flows.resources import open_facts, open_resources


def sweep(options: argparse.Namespace) -> int:
    """Try configs and models and print how good each is; 1 if a trial failed."""
    model = find_model(options.models[0])
    values = _read_changes(options.set)
    own, others = _split_configs(model, options.config)
    names = ("experiment", "sampler", "trials", "batch", "seed", "metric", "description")
    given = {name: getattr(options, name) for name in names}
    search = SweepPlan(**given, values=values, models=options.models[1:], configs=others)
    search.check()
    runner = model.task_runner(options.task_runner, workers=options.workers, address=options.cluster)
    begun: list[str] = []

    async def work() -> Any:
        config = await load_config(model.config, own) if own else _make_base(model, values)
        await read_contestants(model, config, search)  # what is wrong with them needs no run to be said
        flow: Any = watched(model.sweep.with_options(task_runner=runner), begun)
        return await flow(config, options.data, search, options.geo, read_plan(options))

    try:
        result = run_here(work(), options)
    except ChapkitFlowsError as error:
        return show_error(error, options, recorded_run(begun))
    if options.json:
        print_json(result.to_dict())
        return 1 if result.trials["failed"] else 0
    resources = open_resources()
    _print_ranking(rank(resources, find_experiment(resources.database, search.experiment), search.metric))
    counts = result.trials
    told = f"{counts['done']} done, {counts['reused']} of them before or alike, {counts['failed']} failed"
    print_line("")
    print_facts([("Trials of this sweep", told), ("Table", result.artifact_id), ("Run", result.run_id)])
    print_line(f"\nLook at them again:\n  chapkit-flows experiments show {result.experiment}")
    return 1 if counts["failed"] else 0


def list_(options: argparse.Namespace) -> int:
    """Print all experiments."""
    found = list_experiments(open_facts())
    if options.json:
        print_json({"experiments": [experiment.to_dict() | {"trials": count} for experiment, count in found]})
        return 0
    if not found:
        say("There is no experiment. Begin one: chapkit-flows sweep MODEL --data URI --experiment NAME --set KEY=1,2")
    rows = [
        (one.name, ", ".join(one.models), count, when(one.created_at), one.author, one.description)
        for one, count in found
    ]
    if rows:
        print_table(("experiment", "models", "runs", "begun", "by", "description"), rows)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the trials of an experiment side by side."""
    resources = open_resources()
    ranking = rank(resources, find_experiment(resources.database, options.name), options.metric)
    if options.json:
        print_json(ranking.to_dict())
        return 0
    experiment = ranking.experiment
    facts = [("Experiment", experiment.name), ("Models", ", ".join(experiment.models))]
    facts += [("Begun", f"{when(experiment.created_at)} by {experiment.author}")]
    facts += [("Description", experiment.description)] if experiment.description else []
    print_facts(facts)
    print_line("")
    _print_ranking(ranking)
    return 0


def _read_changes(texts: list[str]) -> dict[str, list[Any] | str]:
    """By field the values to try, or a range as it is written.

    Raises:
        InvalidSweep: A field is given twice.
        InvalidConfig: Values cannot be read.
    """
    found: dict[str, list[Any] | str] = {}
    for text in texts:
        key, values = split_change(text)
        if key in found:
            raise InvalidSweep(f"--set {key} is given twice. Give all its values at once: --set {key}=V1,V2")
        found[key] = values if is_range(values) else read_values(key, values)
    return found


def _split_configs(model: Model, names: list[str]) -> tuple[str | None, list[str]]:
    """The first saved config of the first model, and the others."""
    own_type = model.config.get_block_type_slug()
    own = next((name for name in names if "/" not in name or name.rpartition("/")[0] == own_type), None)
    return own, [name for name in names if name != own]


def _make_base(model: Model, values: dict[str, list[Any] | str]) -> ModelConfig:
    """The defaults; fields that have none take the first of the values to try.

    Raises:
        InvalidConfig: A field without default is not among them.
    """
    needed = [name for name, field in model.config.model_fields.items() if field.is_required()]
    keys = {name: {name, model.config.model_fields[name].alias} for name in needed}
    found = {key: next(iter(some)) for key, some in values.items() if isinstance(some, list) and some}
    first = {key: value for key, value in found.items() if any(key in names for names in keys.values())}
    missing = [name for name in needed if not keys[name] & set(first)]
    if missing:
        raise InvalidConfig(
            f"{missing[0]} of {model.config.__name__} has no default. Name a saved config with --config NAME."
        )
    return model.config.model_validate(first)


def _print_ranking(ranking: Ranking) -> None:
    head, rows = ranking.cells()
    if not rows:
        print_line("No trial has ended yet.")
        return
    print_table(head, rows)
    for row in ranking.rows:
        if row.run.error:
            print_line(f"\nTrial {row.trial.number} failed: {row.run.error}")
    if ranking.left_out:
        print_line(f"\nLeft out are {ranking.left_out} earlier trials: other data, other folds, or older code.")
    if ranking.best is not None:
        skill = ranking.best.skill
        if ranking.baseline is not None and skill is not None and skill <= 0:
            print_line(f"\nNo trial is better than {ranking.baseline.replace('_', ' ')} by CRPS.")
        _print_next(ranking.best, ranking.experiment.name)


def _print_next(best: Ranked, name: str) -> None:
    """How the best trial becomes the model in use."""
    run = best.run
    if run.config is None or run.entrypoint is None:
        return
    words = ["chapkit-flows", "train", _short(run.entrypoint), "--data", str(run.parameters.get("data", "URI"))]
    words += ["--geo", str(run.parameters["geo"])] if run.parameters.get("geo") else []
    words += ["--config", f"{run.config.block_type}/{run.config.name}"] if run.config.name else []
    # Where the sweep began from values that are saved nowhere, all are needed, not only those that it has tried.
    tried = dict.fromkeys(run.parameters.get("values", {}))
    for key in tried if run.config.name else tried | dict(run.config.content):
        value = write_value(run.config.content.get(key))
        words += ["--set", f"{key}={value}"] if MASK not in value else []
    print_line(f"\nTo use the best, trial {best.trial.number}: train with its config, register the model, promote it:")
    print_line(f"  {shlex.join(words)}")
    print_line("  chapkit-flows models register ID")
    reason = shlex.quote(f"the best of the experiment {name}")
    print_line(f"  chapkit-flows models promote {run.model}@NUMBER --reason {reason}")
    saved = f"{run.config.block_type}/{name.replace('_', '-')}"
    print_line(f"To keep its config under a name:\n  chapkit-flows configs use {run.id} --as {saved}")


def _short(entrypoint: str) -> str:
    """A path below the current folder, as one would type it."""
    file, colon, name = entrypoint.rpartition(":")
    path = Path(file)
    return f"{path.relative_to(Path.cwd())}{colon}{name}" if path.is_relative_to(Path.cwd()) else entrypoint
