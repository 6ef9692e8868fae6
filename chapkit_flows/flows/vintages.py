"""What a backtest knew at each origin: from one table that says when values were known, or from all that a URI brought.

Each fold is given a dataset that holds nothing but what was known at its origin: no process that does a fold can see
more. What is known now is only the truth, and what the same folds are done with again to tell the optimism.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import numpy as np
import pandas as pd
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict, Field

from chapkit_flows.artifacts.codecs import load, save
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.data.panels import Panel, check_panel
from chapkit_flows.data.periods import period_end
from chapkit_flows.data.tables import read_table
from chapkit_flows.data.vintages import VintageTable, check_vintages, known_at_column
from chapkit_flows.errors import DataError, EvaluationError, ValidationFailed
from chapkit_flows.evaluation.comparison import ModelComparison
from chapkit_flows.evaluation.scores import fingerprint
from chapkit_flows.evaluation.splits import Split, check_truth
from chapkit_flows.evaluation.vintages import Known, describe_known, optimism_of
from chapkit_flows.flows import steps
from chapkit_flows.flows.check import Loaded, errors_first, has_errors
from chapkit_flows.flows.folds import FoldSources
from chapkit_flows.flows.ingest import fetch, keep
from chapkit_flows.flows.session import RunSession
from chapkit_flows.flows.summary import publish_diagnostics
from chapkit_flows.lineage.deletions import get_usable
from chapkit_flows.lineage.facts import Reading
from chapkit_flows.lineage.query import find_dataset
from chapkit_flows.lineage.readings import readings
from chapkit_flows.models.worker import run_apart
from chapkit_flows.refs import ArtifactRef, Diagnostic, new_id, now

VINTAGE = "vintage"
"""The role of a dataset that was what was known at an origin."""
REVISED = "revised_"
"""How the metrics of a run are called that are the means on revised data."""
OPTIMISM = "optimism_"
"""How those are called that say by which share revised data look better: 0.1 is a tenth."""

_KEYS = ["time_period", "location"]
_PAGE = 200
_ONE_READING = (
    "{uri} has no column known_at, issue or as_of that says when its values were known, and its readings have brought "
    "one dataset only: there are no vintages. Give one table with a row for each place, period and moment at which a "
    "value was new, or run train or retrain from this URI whenever it has new data: what each reading brought is kept, "
    "and is a vintage from then on. Until then, backtest without vintages."
)


class VintagePlan(BaseModel):
    """How what was known at an origin is told, and with what the forecasts are scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_days: int = Field(
        default=0,
        description="How many days after the last period a forecast is made: it knows what was known by then.",
    )
    truth_lag_days: int | None = Field(
        default=None,
        description="The truth is what was known so many days after the end of a period; default: what is known now.",
    )

    def check(self) -> None:
        """See that the numbers can be.

        Raises:
            EvaluationError: One is negative.
        """
        for name in ("delay_days", "truth_lag_days"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise EvaluationError(f"{name} is {value}; write a whole number of days from 0 up.")


class Series(Protocol):
    """All versions of a dataset."""

    @property
    def first(self) -> date:
        """The day from which on something was known."""

    def known_by(self, day: date) -> tuple[ArtifactRef | None, pd.DataFrame] | None:
        """What was known at the end of a day: the dataset, if it is one already, and its rows. None for nothing."""

    def settled(self, periods: Sequence[str], lag: int) -> pd.DataFrame:
        """Each of the periods as it was known so many days after it ended; other rows do not matter."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _TableSeries:
    """One table that says when each value was known."""

    table: VintageTable

    @property
    def first(self) -> date:
        return self.table.first

    def known_by(self, day: date) -> tuple[None, pd.DataFrame] | None:
        frame = self.table.known_by(day)
        return None if frame.empty else (None, frame)

    def settled(self, periods: Sequence[str], lag: int) -> pd.DataFrame:
        return self.table.settled(lag)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ReadingSeries:
    """What the readings of one URI brought, oldest first; datasets that are no panels were of no use to anybody."""

    session: RunSession
    required: tuple[str, ...]
    readings: tuple[tuple[datetime, ArtifactRef], ...]
    unusable: set[str] = field(default_factory=set)

    @property
    def first(self) -> date:
        return self.readings[0][0].astimezone(UTC).date()

    def known_by(self, day: date) -> tuple[ArtifactRef, pd.DataFrame] | None:
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        for _, artifact in reversed([one for one in self.readings if one[0] < end]):
            if artifact.id not in self.unusable:
                frame, reason = self._read(artifact)
                if frame is not None:
                    return artifact, frame
                self.unusable.add(artifact.id)
                get_run_logger().warning("The dataset %s is left out of the vintages: %s", artifact.id, reason)
        return None

    def settled(self, periods: Sequence[str], lag: int) -> pd.DataFrame:
        parts = []
        for period in periods:
            known = self.known_by(period_end(period) + timedelta(days=lag))
            if known is not None:
                parts.append(known[1].loc[known[1]["time_period"] == period])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_KEYS)

    def _read(self, artifact: ArtifactRef) -> tuple[pd.DataFrame | None, str]:
        """The rows of a dataset; or why it is none that anybody could learn from."""
        target = self.session.model.target
        with self.session.resources.store.open(artifact.digest) as file:
            try:
                frame = read_table(
                    file, media_type=artifact.media_type, numeric=(*self.required, target), name=artifact.id
                )
            except DataError as error:
                return None, str(error)
        panel, findings = check_panel(frame, role="data", required=self.required, target=target)
        if panel is None or has_errors(findings):
            return None, errors_first(findings)[0].message
        return panel.frame, ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedSeries:
    """A series that was read.

    Attributes:
        latest: What is known now, as a table.
        dataset: The same, in the store; None until it is made of a table that has more.
        series: Of which it is the newest version; None if the table cannot be read as one.
    """

    latest: Loaded
    dataset: ArtifactRef | None
    series: Series | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vintages:
    """From what each fold is done, and with what it is scored.

    Attributes:
        known: By fold, what was known at its origin.
        sources: The datasets of what was known.
        revised: For the same folds: what is known now.
        truth: With which both are scored.
    """

    known: tuple[Known, ...]
    sources: FoldSources
    revised: FoldSources
    truth: Panel


@steps.step("load data", task_run_name="load the vintages of data")
async def load_series(session: RunSession, uri: str, *, config: ModelConfig) -> LoadedSeries:
    """Read a table, keep its bytes in the store, and find out what was known when.

    Raises:
        ValidationFailed: There is one version only.
    """
    async with steps.showing_unreadable(session.model, "data"):
        loaded = await run_apart(_load, session, uri, session.model.covariates(config))
    if loaded.series is None and not has_errors(loaded.latest.findings):
        message = _ONE_READING.format(uri=session.inputs[0].artifact.metadata.get("uri", uri))
        found = Diagnostic.error("no_vintages", message, "data")
        await publish_diagnostics(session.model.name, [found])
        raise ValidationFailed([found])
    return loaded


def _load(session: RunSession, uri: str, required: tuple[str, ...]) -> LoadedSeries:
    target = session.model.target
    with fetch(session.resources, uri) as fetched:
        name = f"data ({fetched.name})"
        frame = read_table(fetched.file, media_type=fetched.media_type, numeric=(*required, target), name=name)
        table: VintageTable | None = None
        if known_at_column(frame) is None:
            panel, findings = check_panel(frame, role="data", required=required, target=target)
            facts = panel.profile() if panel is not None else {}
        else:
            table, found = check_vintages(frame, role="data", required=required, target=target)
            panel, findings = _latest(table, found, required, target)
            facts = {} if panel is None or table is None else _table_facts(panel, table)
        artifact, ingested = keep(session.resources, fetched, facts)
    session.consumed("data", artifact, fetched=fetched, ingested=ingested)
    latest = Loaded(panel=panel, findings=findings)
    if table is not None:
        get_run_logger().info(
            "Loaded data: %d rows, known at %d moments from %s to %s",
            len(table.frame), table.moments, table.first, table.last,
        )  # fmt: skip
        return LoadedSeries(latest=latest, dataset=None, series=_TableSeries(table=table))
    if known_at_column(frame) is not None:
        return LoadedSeries(latest=latest, dataset=None, series=None)
    return LoadedSeries(latest=latest, dataset=artifact, series=_find_readings(session, uri, artifact, required))


def _latest(
    table: VintageTable | None, found: tuple[Diagnostic, ...], required: tuple[str, ...], target: str
) -> tuple[Panel | None, tuple[Diagnostic, ...]]:
    """The newest rows as a panel, with the findings of both."""
    if table is None:
        return None, found
    panel, more = check_panel(table.latest(), role="data", required=required, target=target)
    known = {one.code for one in found}
    return panel, (*found, *(one for one in more if one.code not in known))


def _table_facts(panel: Panel, table: VintageTable) -> dict[str, Any]:
    facts = {"moments": table.moments, "known_from": table.first.isoformat(), "known_to": table.last.isoformat()}
    return panel.profile() | {"rows": len(table.frame)} | facts


def _find_readings(
    session: RunSession, uri: str, artifact: ArtifactRef, required: tuple[str, ...]
) -> _ReadingSeries | None:
    """What earlier readings of the URI brought, and this one; None if all brought the same.

    Raises:
        ArtifactDeleted: One of them is in the trash.
    """
    found: list[Reading] = []
    while page := readings(session.resources.database, uri, limit=_PAGE, before=found[-1].id if found else None):
        found += page
    moments = [(one.read_at, one.artifact_id) for one in reversed(found)] + [(now(), artifact.id)]
    kept = [one for at, one in enumerate(moments) if at == 0 or moments[at - 1][1] != one[1]]
    if len({artifact_id for _, artifact_id in kept}) < 2:
        return None
    known = {artifact.id: artifact}
    for _, artifact_id in kept:
        if artifact_id not in known:
            known[artifact_id] = get_usable(session.resources.database, artifact_id)
    get_run_logger().info("The readings of this URI brought %d datasets since %s", len(known), kept[0][0].date())
    return _ReadingSeries(
        session=session, required=required, readings=tuple((moment, known[one]) for moment, one in kept)
    )


@steps.step("find what was known")
async def find_known(
    session: RunSession, loaded: LoadedSeries, panel: Panel, splits: Sequence[Split], *, plan: VintagePlan
) -> Vintages:
    """Find, or make and keep, the dataset of what was known at each origin; and the truth.

    Raises:
        ValidationFailed: Nothing was known at an origin, or no truth at the lag.
    """
    try:
        found = await run_apart(_find_known, session, loaded, panel, splits, plan)
    except ValidationFailed as refusal:
        await publish_diagnostics(session.model.name, refusal.diagnostics)
        raise
    log = get_run_logger()
    for one in found.known:
        if not one.reported:
            log.warning(
                "On %s no place had reported %s yet, the origin itself: its rows are empty. Give a delay, as long as "
                "you wait for reports.", one.known_by, one.origin,
            )  # fmt: skip
    return found


def _find_known(
    session: RunSession, loaded: LoadedSeries, panel: Panel, splits: Sequence[Split], plan: VintagePlan
) -> Vintages:
    series, target = loaded.series, session.model.target
    assert series is not None
    shelf = _Shelf(session)
    days = [period_end(split.origin) + timedelta(days=plan.delay_days) for split in splits]
    frames, datasets = [], []
    for split, day in zip(splits, days, strict=True):
        known = series.known_by(day)
        frame = known[1] if known is not None else panel.frame.iloc[:0]
        frame = split.training(frame)
        if known is None or frame.empty:
            raise ValidationFailed([_before_vintages(series, split, day)])
        frames.append(frame)
        datasets.append(shelf.consume(VINTAGE, known[0] or shelf.keep(frame, f"known by {day}")))
    revised = loaded.dataset or shelf.consume("revised", shelf.keep(panel.frame, "known now"))
    truth = _truth(panel, splits, frames, _settled(series, splits, plan), target=target)
    scored = {"data": revised.digest, "truth": fingerprint(truth.frame[[*_KEYS, target]])}
    return Vintages(
        known=tuple(
            describe_known(frame, panel.frame, split, target=target, known_by=day.isoformat())
            for frame, split, day in zip(frames, splits, days, strict=True)
        ),
        sources=FoldSources(datasets=tuple(datasets), are_vintages=True, truth=scored),
        revised=FoldSources(datasets=(revised,) * len(splits), are_vintages=False, truth=scored),
        truth=truth,
    )


class _Shelf:
    """The datasets that a run learns from, each once."""

    def __init__(self, session: RunSession) -> None:
        self._session = session
        self._made: dict[str, ArtifactRef] = {}
        self._consumed: set[tuple[str, str]] = set()

    def keep(self, frame: pd.DataFrame, name: str) -> ArtifactRef:
        """The dataset of some rows; equal rows are one dataset, whichever run was the first to need it."""
        saved = save(self._session.resources.store, frame)
        known = find_dataset(self._session.resources.database, saved.digest, saved.media_type)
        if known is not None:
            return known
        facts = {"name": name, "rows": len(frame), "places": int(frame["location"].nunique())}
        facts |= {"first": str(frame["time_period"].min()), "last": str(frame["time_period"].max())}
        made = ArtifactRef(id=new_id(), kind="dataset", metadata=facts, **asdict(saved))
        return self._made.setdefault(made.digest, made)

    def consume(self, role: str, artifact: ArtifactRef) -> ArtifactRef:
        """Remember that the run learns from a dataset."""
        if (role, artifact.id) not in self._consumed:
            self._consumed.add((role, artifact.id))
            self._session.consumed(role, artifact, ingested=artifact.digest in self._made)
        return artifact


def _before_vintages(series: Series, split: Split, day: date) -> Diagnostic:
    message = (
        f"On {day}, when the forecast from {split.origin} would have been made, nothing was known of the periods from "
        f"{split.train_periods[0]} on that it learns from: the first vintage is of {series.first}. Ask for fewer "
        "splits, a smaller stride or a longer delay, or bring earlier vintages."
    )
    return Diagnostic.error("origin_before_vintages", message, "data")


def _settled(series: Series, splits: Sequence[Split], plan: VintagePlan) -> pd.DataFrame | None:
    if plan.truth_lag_days is None:
        return None
    return series.settled(sorted({period for split in splits for period in split.test_periods}), plan.truth_lag_days)


def _truth(
    panel: Panel,
    splits: Sequence[Split],
    frames: Sequence[pd.DataFrame],
    settled: pd.DataFrame | None,
    *,
    target: str,
) -> Panel:
    """What the forecasts are scored with: what is known now, or was at the lag; places that are gone have no truth."""
    frame = panel.frame
    if settled is not None:
        values = frame[_KEYS].merge(settled, on=_KEYS, how="left").get(target)
        tested = frame["time_period"].isin({period for split in splits for period in split.test_periods})
        frame = frame.assign(**{target: np.where(tested, np.nan if values is None else values, frame[target])})
        findings = check_truth(frame, splits, target=target)
        for found in findings:
            get_run_logger().warning("%s: %s", found.code, found.message)
        if has_errors(findings):
            raise ValidationFailed(errors_first(findings))
    gone = sorted({str(place) for known in frames for place in known["location"]} - set(panel.locations))
    if gone:
        rows = pd.DataFrame({"time_period": panel.periods[-1], "location": gone, target: np.nan})
        frame = pd.concat([frame, rows.astype({"time_period": "str", "location": "str"})], ignore_index=True)
    return replace(panel, frame=frame, locations=tuple(sorted({*panel.locations, *gone})))


@steps.step("tell the optimism")
async def keep_optimism(
    session: RunSession, vintages: Vintages, tables: Sequence[pd.DataFrame], failed: Mapping[str, str]
) -> None:
    """Keep the scores on revised data, and say how much better they are than those on what was known.

    Args:
        session: That has scored what was known.
        vintages: What was known, for people.
        tables: The scores on revised data, of each fold.
        failed: By origin, why a fold has none.
    """
    store = session.resources.store
    own = next(edge.artifact for edge in session.outputs if edge.role == "scores")
    scores: pd.DataFrame = await asyncio.to_thread(load, store, own, allow_pickle=False)
    table = pd.concat([scores.iloc[:0], *tables], ignore_index=True)
    rows: dict[str, ModelComparison] = {}
    try:
        rows = optimism_of(scores, table)
    except EvaluationError as error:
        get_run_logger().warning("The optimism cannot be told: %s", error)
    for metric, row in rows.items():
        session.metrics[f"{REVISED}{metric}"] = row.mean
        if row.skill is not None:
            session.metrics[f"{OPTIMISM}{metric}"] = row.skill
    facts = {
        "name": "scores on revised data",
        "model": session.model.name,
        "failed": dict(failed),
        "known": [one.to_dict() | {"dataset": source.id} for one, source in _told(vintages)],
        "optimism": [{"metric": metric, **asdict(row)} for metric, row in rows.items()],
    }
    saved = await asyncio.to_thread(save, store, table)
    artifact = ArtifactRef(id=new_id(), kind="metrics", metadata=facts, **asdict(saved))
    session.produced("revised_scores", artifact)


def _told(vintages: Vintages) -> list[tuple[Known, ArtifactRef]]:
    return list(zip(vintages.known, vintages.sources.datasets, strict=True))
