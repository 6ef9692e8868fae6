"""What a model promises: its name, inputs, horizon bounds and runner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from chapkit_flows.errors import InvalidModel
from chapkit_flows.models.code import read_code_version
from chapkit_flows.models.definition import Definition, find_definition
from chapkit_flows.models.hints import ResourceHints, read_hints
from chapkit_flows.models.places import PerPlaceRunner
from chapkit_flows.models.runner import BaseModelRunner, Config
from chapkit_flows.refs import CodeVersion, canonical_json, digest_of

_PERIOD_TYPES = ("daily", "weekly", "monthly", "yearly", "any")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelContract:
    """A model's code and what it needs.

    Attributes:
        name: Lower-case letters, digits, `-` and `_`; part of the flows' names.
        config: The model's own config class.
        runner: How its code is called.
        period_type: The periods it understands.
        required_covariates: Columns that training data, historic data and future data must have.
        allow_free_additional_continuous_covariates: Whether a config may name further covariates.
        per_place: Whether it is trained for each place by itself, with the rows of that place alone, as what other
            libraries call a local model; else one model learns from all places (a global one).
        requires_geo: Whether a run without GeoJSON is refused.
        min_prediction_periods: The shortest horizon it predicts.
        max_prediction_periods: The longest one; None for no bound.
        target: The column it predicts.
        metadata: Facts for people, such as `display_name`, `description`, `author`.
        resources: What one fold of a backtest needs: `cpus`, `memory` (bytes, or a text such as `"4 GB"`), `gpus`.
            Only where folds run follows from it, never what they forecast.
        definition: The module that made it; found by itself.
    """

    name: str
    config: type[Config]
    runner: BaseModelRunner
    period_type: Literal["daily", "weekly", "monthly", "yearly", "any"] = "any"
    required_covariates: Sequence[str] = ()
    allow_free_additional_continuous_covariates: bool = False
    requires_geo: bool = False
    per_place: bool = False
    min_prediction_periods: int = 1
    max_prediction_periods: int | None = None
    target: str = "disease_cases"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, float | str] = field(default_factory=dict)
    definition: Definition = field(default_factory=find_definition, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidModel(
                f"The model name {self.name!r} is not usable: write up to 63 lower-case letters, digits, - and _, "
                "starting with a letter or digit."
            )
        if self.period_type not in _PERIOD_TYPES:
            known = ", ".join(_PERIOD_TYPES)
            raise InvalidModel(f"Model {self.name}: period_type is {self.period_type!r}; write one of {known}.")
        upper = self.max_prediction_periods
        if self.min_prediction_periods < 1 or (upper is not None and upper < self.min_prediction_periods):
            raise InvalidModel(
                f"Model {self.name}: the horizon bounds {self.min_prediction_periods} to {upper} hold no horizon; "
                "write 1 <= min_prediction_periods <= max_prediction_periods."
            )
        if not isinstance(self.runner, BaseModelRunner):
            raise InvalidModel(f"Model {self.name}: runner is {self.runner!r}; write an instance of a runner.")
        if self.per_place and not isinstance(self.runner, PerPlaceRunner):
            # Whoever calls the model then calls it for each place, and need not know.
            object.__setattr__(self, "runner", PerPlaceRunner(self.runner))
        if isinstance(self.required_covariates, str):
            raise InvalidModel(
                f"Model {self.name}: required_covariates is the text {self.required_covariates!r}; write a list."
            )
        read_hints(self.resources, model=self.name)

    @property
    def hints(self) -> ResourceHints:
        """What one fold needs, as it was checked when the model was made."""
        return read_hints(self.resources, model=self.name)

    @property
    def entrypoint(self) -> str | None:
        """From which another process can load it; None in an interactive session.

        `package.module:name` for a module of an installed package, which may not find its neighbours when it is
        imported by path; else `/path/to/file.py:name`.
        """
        name = self.definition.name_of(self)
        if name and self.definition.module:
            return f"{self.definition.module}:{name}"
        return f"{self.definition.file}:{name}" if self.definition.file and name else None

    @cached_property
    def code_version(self) -> CodeVersion:
        """The code as it was when first asked for: what this process has imported, even if files change later."""
        return read_code_version(self.definition)

    @cached_property
    def digest(self) -> str:
        """Of what the model promises and of the commands and files that its runner runs, as at the first question."""
        promised = {
            "name": self.name,
            "period_type": self.period_type,
            "required_covariates": list(self.required_covariates),
            "free_covariates": self.allow_free_additional_continuous_covariates,
            "requires_geo": self.requires_geo,
            "prediction_periods": [self.min_prediction_periods, self.max_prediction_periods],
            "target": self.target,
            "runner": self.runner.source_digest(),
        }
        # Older models, which could not be so, keep their digest.
        return digest_of(canonical_json(promised | ({"per_place": True} if self.per_place else {})))

    def covariates(self, config: Config) -> tuple[str, ...]:
        """The covariates of a run: the required ones, then those that the config adds."""
        added = config.additional_continuous_covariates
        return tuple(dict.fromkeys([*self.required_covariates, *added]))
