"""The runner of a model that is trained for each place: it calls another one with the rows of one place at a time."""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from chapkit_flows.errors import ChapkitFlowsError, PlacesFailed, RunnerFailed, ScriptFailed, ValidationFailed
from chapkit_flows.models.masking import Mask
from chapkit_flows.models.runner import BaseModelRunner, Geo, settle
from chapkit_flows.models.workspace import Workspace
from chapkit_flows.places import PlaceModels
from chapkit_flows.refs import Diagnostic

_NAMED = 5  # places in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFit:
    """What came of training for a place.

    Attributes:
        model: None if it failed.
        reason: Why it failed, secrets masked; empty if it did not.
        workspace: What a command that failed left.
    """

    place: str
    seconds: float
    model: Any = None
    reason: str = ""
    workspace: Workspace | None = None


class PerPlaceRunner(BaseModelRunner):
    """Calls a runner once for each place, with the rows of that place alone; validation sees all of them."""

    def __init__(self, runner: BaseModelRunner) -> None:
        self._runner = runner
        self.can_update = runner.can_update

    def on_init(self) -> Any:
        """Once for many places."""
        return self._runner.on_init()

    def on_cleanup(self) -> Any:
        """Once for many places."""
        return self._runner.on_cleanup()

    async def fit_each(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> AsyncIterator[PlaceFit]:
        """Train for one place after the other; one that fails does not keep the others from it."""
        mask = Mask(config)
        for place, rows in _by_place(data):
            began = time.perf_counter()
            try:
                model = await settle(self._runner.on_train(config, rows, geo))
                if model is None:
                    raise RunnerFailed("on_train returned None. Return the fitted model: any object.")
            except Exception as error:  # noqa: BLE001
                # The model's code is the user's: it can fail in any way.
                seconds = time.perf_counter() - began
                left = error.workspace if isinstance(error, ScriptFailed) else None
                yield PlaceFit(place=place, seconds=seconds, reason=mask(_describe(error)), workspace=left)
            else:
                yield PlaceFit(place=place, seconds=time.perf_counter() - began, model=model)

    async def on_train(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> PlaceModels:
        """Train for each place.

        Raises:
            PlacesFailed: It failed for some.
        """
        fits = [one async for one in self.fit_each(config, data, geo)]
        raise_failed({one.place: one.reason for one in fits if one.reason}, len(fits))
        return PlaceModels({one.place: one.model for one in fits})

    async def on_update(
        self, config: Any, model: PlaceModels, data: pd.DataFrame, geo: Geo | None = None
    ) -> PlaceModels:
        """Go on training for each place that has new rows; a place that is new is trained."""
        kept: dict[str, Any] = {place: model[place] for place in model}
        for place, rows in _by_place(data):
            with _Naming(place):
                if place in kept:
                    kept[place] = await settle(self._runner.on_update(config, kept[place], rows, geo))
                else:
                    kept[place] = await settle(self._runner.on_train(config, rows, geo))
        return PlaceModels(kept)

    async def on_predict(
        self, config: Any, model: PlaceModels, historic: pd.DataFrame, future: pd.DataFrame, geo: Geo | None = None
    ) -> Any:
        """Predict for each place of `future` with its own model, which is read only then.

        Raises:
            ValidationFailed: There is none for some of them.
        """
        findings = check_places(model, future["location"].unique())
        if findings:
            raise ValidationFailed(findings)
        past = dict(_by_place(historic))
        returned = {}
        for place, rows in _by_place(future):
            with _Naming(place):
                before = past.get(place, historic.iloc[:0])
                returned[place] = await settle(self._runner.on_predict(config, model[place], before, rows, geo))
        return self._runner.join_places(returned)

    def on_validate_train(self, config: Any, data: pd.DataFrame, geo: Geo | None = None) -> Any:
        """Ask about all places at once."""
        return self._runner.on_validate_train(config, data, geo)

    def on_validate_predict(
        self, config: Any, historic: pd.DataFrame, future: pd.DataFrame, geo: Geo | None = None
    ) -> Any:
        """Ask about all places at once."""
        return self._runner.on_validate_predict(config, historic, future, geo)

    def describe(self, result: Any) -> Mapping[str, Any]:
        """Of trained models the places; of all else what the runner itself says."""
        return {"trained_places": list(result)} if isinstance(result, PlaceModels) else self._runner.describe(result)

    def source_digest(self) -> str | None:
        """As of the runner itself."""
        return self._runner.source_digest()


def check_places(trained: Mapping[str, Any] | list[str], wanted: Any) -> list[Diagnostic]:
    """The finding that some places have no trained model, if they have none."""
    known = set(trained)
    absent = sorted(place for place in wanted if place not in known)
    if not absent:
        return []
    message = (
        f"{len(absent)} places of future have no trained model: {_listed(absent)}. It is trained for each place: "
        "train again with their data, or take them off future."
    )
    return [Diagnostic.error("place_not_trained", message, "future.location")]


def raise_failed(reasons: Mapping[str, str], total: int) -> None:
    """Raise PlacesFailed if there is a reason for some place."""
    if not reasons:
        return
    told = "\n".join(f"- {place}: {reason}" for place, reason in list(reasons.items())[:_NAMED])
    more = f"\nand {len(reasons) - _NAMED} more: {_listed(list(reasons)[_NAMED:])}" if len(reasons) > _NAMED else ""
    raise PlacesFailed(
        f"No model for {len(reasons)} of {total} places, so none for any: a forecast has no silent holes. Correct the "
        f"data or the code, or take the places off the data; the others are not fitted again.\n{told}{more}",
        reasons=reasons,
    )


def _by_place(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for place, rows in frame.groupby("location", sort=True):
        yield str(place), rows.reset_index(drop=True)


class _Naming:
    """Says in an exception which place it is about."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ScriptFailed):
            raise ScriptFailed(f"{self._place}: {error}", workspace=error.workspace) from error
        if error is not None:
            error.add_note(f"The place is {self._place!r}.")


def _describe(error: Exception) -> str:
    if isinstance(error, ChapkitFlowsError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"


def _listed(places: list[str]) -> str:
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return f"{', '.join(places[:_NAMED])}{more}"
