"""What a sweep tries: every combination of values, or what Optuna proposes after the trials before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import load_config
from chapkit_flows.configs.spaces import Space, read_space
from chapkit_flows.errors import InvalidConfig, InvalidSetting, InvalidSweep
from chapkit_flows.evaluation.metrics import metric_named
from chapkit_flows.flows.trials import Attempt, Candidate
from chapkit_flows.lineage.experiments import check_experiment_name
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.discovery import load_model

Sampler = Literal["grid", "optuna"]
MOST = 1000
"""So many trials one sweep may have: each is a run, and all are compared with the best."""

_DEFAULT_TRIALS = 20


class SweepPlan(BaseModel):
    """What a sweep tries, and under which name its trials are found again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str = Field(
        description="Under which name the trials are found again: lower-case letters, digits, - and _. With the name "
        "of an experiment that is there already, only what it has not tried yet is done."
    )
    values: dict[str, list[Any] | str] = Field(
        default={},
        description="By field of the config the values to try, such as [1, 2, 3]; with optuna also a range, such as "
        '"0.1:10:log" or "1:12".',
    )
    models: list[str] = Field(
        default=[], description="Further models to try: path/to/file.py:name, or the names of installed models."
    )
    configs: list[str] = Field(
        default=[], description="Further saved configs to try; type/name for one of another model."
    )
    sampler: Sampler = Field(
        default="grid", description="Try each combination (grid), or what the trials before make likely (optuna)."
    )
    trials: int | None = Field(default=None, description="How many trials optuna makes; default: 20.")
    batch: int = Field(default=4, description="How many trials optuna proposes at once; their folds run together.")
    seed: int = Field(default=0, description="Of optuna: equal seeds and batches give equal trials.")
    metric: str = Field(default="crps", description="By which the best is found: one of which less is better.")
    description: str = Field(default="", description="What people should know of a new experiment.")

    def check(self) -> None:
        """See that the plan can be followed.

        Raises:
            InvalidExperiment: The name cannot be one.
            UnknownMetric: There is no such metric.
            InvalidSweep: A number or the metric does not fit.
        """
        check_experiment_name(self.experiment)
        if metric_named(self.metric).orientation != "lower":
            raise InvalidSweep(f"{self.metric} has no best: trials are compared by a metric of which less is better.")
        if self.sampler == "grid" and self.trials is not None:
            raise InvalidSweep("trials is for the sampler optuna: a grid tries each combination.")
        for name, number, most in (("trials", self.trials, MOST), ("batch", self.batch, MOST)):
            if number is not None and not 1 <= number <= most:
                raise InvalidSweep(f"{name} is {number}; write 1 to {most}.")
        if not 0 <= self.seed < 2**32:
            raise InvalidSweep(f"seed is {self.seed}; write 0 to {2**32 - 1}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contestant:
    """A model with the values that are tried of one of its configs."""

    model: ModelContract
    space: Space


class Search(Protocol):
    """Proposes candidates in batches, until it has none."""

    def ask(self) -> list[Candidate]:
        """The next ones."""

    def tell(self, attempts: Sequence[Attempt]) -> None:
        """What came of the last ones."""


async def read_contestants(model: ModelContract, config: ModelConfig, plan: SweepPlan) -> list[Contestant]:
    """The models and configs of a sweep, with the values that are tried of each.

    Raises:
        InvalidSweep: There is nothing to choose between, or too much; or a value does not fit.
        InvalidConfig: A value does not fit its field.
        ConfigNotFound: A saved config is not there.
        ModelNotFound: A model is not there.
    """
    plan.check()
    models = [model, *(load_model(text) for text in plan.models)]
    names = [one.name for one in models]
    if len(set(names)) < len(names):
        raise InvalidSweep(f"A model is named twice: {', '.join(names)}. Name each once.")
    configs = await _load_configs(models, plan.configs)
    found = []
    for one in models:
        bases = ([config] if one is model else []) + configs[one.name] or [_default(one)]
        for base in bases:
            try:
                found.append(Contestant(model=one, space=read_space(base, plan.values)))
            except InvalidConfig as error:
                raise InvalidConfig(f"{one.name}: {error}") from error
            except InvalidSweep as error:
                raise InvalidSweep(f"{one.name}: {error}") from error
    _check_size(found, plan)
    return found


def _default(model: ModelContract) -> ModelConfig:
    try:
        config = model.config()
    except ValueError as error:
        raise InvalidSweep(
            f"{model.name}: its config has fields without defaults. Name a saved config, as "
            f"{model.config.__name__}'s type/name."
        ) from error
    assert isinstance(config, ModelConfig)
    return config


async def _load_configs(models: Sequence[ModelContract], texts: Sequence[str]) -> dict[str, list[ModelConfig]]:
    """By model the saved configs that are named; those without a type are of the first model."""
    found: dict[str, list[ModelConfig]] = {model.name: [] for model in models}
    types = {_type_of(model): model for model in reversed(models)}
    for text in texts:
        block_type, slash, _ = text.rpartition("/")
        if slash and block_type not in types:
            raise InvalidSweep(f"The config {text} is of none of the models. Their types: {', '.join(types)}.")
        model = types[block_type] if slash else models[0]
        assert issubclass(model.config, ModelConfig)
        found[model.name].append(await load_config(model.config, text))
    return found


def _type_of(model: ModelContract) -> str:
    assert issubclass(model.config, ModelConfig)
    return model.config.get_block_type_slug()


def _check_size(contestants: Sequence[Contestant], plan: SweepPlan) -> None:
    if len(contestants) == 1 and not plan.values:
        raise InvalidSweep(
            "There is nothing to choose between. Give values of a field, such as --set n_lags=1,2,3, or several "
            "models or configs."
        )
    if plan.sampler == "optuna":
        return
    ranges = [name for contestant in contestants for name in contestant.space.ranges]
    if ranges:
        raise InvalidSweep(
            f"{ranges[0]} is given as a range, of which a grid cannot try all. Choose the sampler optuna, or write "
            "values with commas between."
        )
    size = sum(contestant.space.size for contestant in contestants)
    if size > MOST:
        raise InvalidSweep(f"The grid has {size} combinations; at most {MOST} are tried. Give fewer values, or optuna.")


def make_search(contestants: Sequence[Contestant], plan: SweepPlan) -> Search:
    """What proposes the trials.

    Raises:
        InvalidSetting: Optuna is not installed.
    """
    return GridSearch(contestants) if plan.sampler == "grid" else OptunaSearch(contestants, plan)


class GridSearch:
    """Proposes every combination, all at once."""

    def __init__(self, contestants: Sequence[Contestant]) -> None:
        self._left = [
            _candidate(contestant, values) for contestant in contestants for values in contestant.space.grid()
        ]

    def ask(self) -> list[Candidate]:
        """All, the first time."""
        asked, self._left = self._left, []
        return asked

    def tell(self, attempts: Sequence[Attempt]) -> None:
        """Nothing depends on it."""


class OptunaSearch:
    """Proposes what the trials before make likely to be good, by the tree-structured Parzen estimator.

    Equal seeds, batches and results give equal proposals: a sweep that crashed, run again, finds its trials done.
    """

    def __init__(self, contestants: Sequence[Contestant], plan: SweepPlan) -> None:
        optuna = _import_optuna()
        # It would say on stderr of each study that it was made.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=plan.seed))
        self._failed = optuna.trial.TrialState.FAIL
        self._contestants, self._metric, self._batch = contestants, plan.metric, plan.batch
        self._left = plan.trials or _DEFAULT_TRIALS
        self._asked: list[Any] = []

    def ask(self) -> list[Candidate]:
        """The next batch."""
        count = min(self._left, self._batch)
        self._left -= count
        self._asked = [self._study.ask() for _ in range(count)]
        return [self._propose(trial) for trial in self._asked]

    def tell(self, attempts: Sequence[Attempt]) -> None:
        """How good they were; of a trial that failed that it did."""
        for trial, attempt in zip(self._asked, attempts, strict=True):
            run = attempt.run
            # The mean of the other folds is another number.
            whole = run is not None and run.status == "completed" and not run.metrics.get("failed_folds")
            value = run.metrics.get(self._metric) if run is not None and whole else None
            if value is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, value)

    def _propose(self, trial: Any) -> Candidate:
        place = trial.suggest_categorical("config", range(len(self._contestants))) if len(self._contestants) > 1 else 0
        contestant = self._contestants[place]
        values: dict[str, Any] = {}
        for name, choices in contestant.space.choices.items():
            # By their places: Optuna takes no lists as choices.
            values[name] = choices[trial.suggest_categorical(_unique(contestant, place, name), range(len(choices)))]
        for name, bounds in contestant.space.ranges.items():
            is_whole = isinstance(bounds.low, int) and isinstance(bounds.high, int)
            suggest: Callable[..., Any] = trial.suggest_int if is_whole else trial.suggest_float
            values[name] = suggest(_unique(contestant, place, name), bounds.low, bounds.high, log=bounds.is_log)
        return _candidate(contestant, values)


def _unique(contestant: Contestant, place: int, name: str) -> str:
    """The name of a parameter: two models may mean two things by one word."""
    return f"{place}.{contestant.model.name}.{name}"


def _candidate(contestant: Contestant, values: dict[str, Any]) -> Candidate:
    try:
        return Candidate(model=contestant.model, config=contestant.space.config(values), values=values)
    except InvalidConfig as error:
        return Candidate(model=contestant.model, config=None, values=values, error=str(error))


def _import_optuna() -> Any:
    try:
        return import_module("optuna")
    except ModuleNotFoundError as error:
        raise InvalidSetting(
            f'The sampler optuna needs {error.name}, which is not installed. Run: pip install "chapkit-flows[optuna]"'
        ) from error


def batches(search: Search) -> Iterator[list[Candidate]]:
    """The proposals, until there are none."""
    while proposed := search.ask():
        yield proposed
