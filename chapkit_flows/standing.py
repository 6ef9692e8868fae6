"""How the versions of a model do in earnest: what they forecast, scored when the truth came, beside the champion.

Two versions are compared where both have forecast the same place and period from the same origin. Of a prediction that
was scored several times the newest scoring counts; of several predictions of a version from one origin the newest.
What a version says of periods that it was trained on is no forecast of its: it may have seen the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from chapkit_flows.artifacts.codecs import load
from chapkit_flows.evaluation.comparison import compare
from chapkit_flows.evaluation.gates import Gate, judge
from chapkit_flows.evaluation.scores import KEYS
from chapkit_flows.lineage.assignments import ModelVersion
from chapkit_flows.lineage.deletions import find_deletion
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import consumers, get_artifact, list_runs
from chapkit_flows.lineage.registry import holders, scan_versions
from chapkit_flows.promotion import Trial
from chapkit_flows.resources import Resources

FINGERPRINTS = "fingerprints"
"""The key in the metadata of scores under which each prediction has a fingerprint of its rows."""

_METRIC = "crps"
_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveScores:
    """The scored forecasts of a version.

    Attributes:
        rows: As `score_split` returns them, and `prediction`: the id of the artifact; one per origin, place and period.
    """

    version: ModelVersion
    rows: pd.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standing:
    """The versions of a model that have scored forecasts.

    Attributes:
        alias: That says which one is in use.
        expected: The number of its holder; None for none.
        live: By number.
    """

    model: str
    alias: str
    expected: int | None
    live: Mapping[int, LiveScores]

    @property
    def champion(self) -> LiveScores | None:
        """The forecasts of the holder of the alias, if any of them are scored."""
        return None if self.expected is None else self.live.get(self.expected)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        champion = None if self.expected is None else f"{self.model}@{self.expected}"
        versions = [_describe(one, self.champion) for one in self.live.values()]
        return {"alias": self.alias, "champion": champion, "metric": _METRIC, "versions": versions}


def read_standing(resources: Resources, model: str, *, alias: str, fresh: Mapping[str, pd.DataFrame]) -> Standing:
    """Gather the scored forecasts of all versions of a model.

    Args:
        resources: Of the registry and the scores.
        model: Its name.
        alias: That says which version is in use.
        fresh: Scores that no run has recorded yet, by prediction.
    """
    database = resources.database
    holder = holders(database, model).get(alias)
    made = {
        prediction: version
        for version in scan_versions(database, model)
        for prediction in _predictions(database, version.artifact_id)
    }
    tables: dict[int, list[pd.DataFrame]] = {}
    owners: dict[int, ModelVersion] = {}
    learned: dict[int, str] = {}
    for prediction, rows in _newest_scores(resources, model, set(made), fresh):
        version = made[prediction]
        if version.number not in owners:
            owners[version.number], learned[version.number] = version, _learned_until(database, version)
        ahead = rows[rows["time_period"] > learned[version.number]]
        tables.setdefault(version.number, []).append(ahead.assign(prediction=prediction))
    live = {number: LiveScores(version=owners[number], rows=_once(tables[number])) for number in sorted(owners)}
    known = {number: one for number, one in live.items() if one.rows[_METRIC].notna().any()}
    return Standing(model=model, alias=alias, expected=holder.number if holder else None, live=known)


def try_challengers(resources: Resources, standing: Standing, gate: Gate) -> list[tuple[LiveScores, Trial]]:
    """Judge each version that is not in use beside the one that is, the best first; none without a champion's scores.

    What is in the trash is not judged: nobody could predict with it.
    """
    champion = standing.champion
    if champion is None:
        return []
    tried = []
    for one in standing.live.values():
        version = one.version
        if version.number == standing.expected or find_deletion(resources.database, version.artifact_id) is not None:
            continue
        sources = {"candidate": _source(one), "champion": _source(champion)}
        verdict = judge(gate, one.rows, champion.rows)
        tried.append((one, Trial(verdict=verdict, expected=standing.expected, sources=sources)))
    return sorted(tried, key=lambda pair: -_skill(pair[0], champion))


def _learned_until(database: Database, version: ModelVersion) -> str:
    """The last period of the data that a version was trained on; empty, which is before all, if that is not known."""
    profile = get_artifact(database, version.artifact_id).metadata.get("trained_on") or {}
    return str(profile.get("last") or "")


def _predictions(database: Database, artifact_id: str) -> Iterator[str]:
    """The ids of all that was predicted with a trained model."""
    before: str | None = None
    while page := consumers(database, artifact_id, limit=_PAGE, before=before):
        for run in page:
            made = run.find_output("prediction")
            if made is not None and run.status == "completed":
                yield made.id
        before = page[-1].id


def _newest_scores(
    resources: Resources, model: str, wanted: set[str], fresh: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The newest scores of some predictions, those of the newest runs first."""
    missing = set(wanted)
    for prediction in sorted(missing & set(fresh)):
        missing.remove(prediction)
        yield prediction, fresh[prediction]
    for run in _scorings(resources.database, model):
        if not missing:
            return
        found = sorted(missing & scored_by(run))
        kept = run.find_output("scores")
        if not found or kept is None or find_deletion(resources.database, kept.id) is not None:
            continue
        missing -= set(found)
        table: pd.DataFrame = load(resources.store, kept, allow_pickle=False)
        yield from ((str(name), rows) for name, rows in table[table["prediction"].isin(found)].groupby("prediction"))


def scored_by(run: RunFact) -> set[str]:
    """The ids of the predictions that a run scored."""
    return {edge.artifact.id for edge in run.inputs if edge.role == "prediction"}


def _scorings(database: Database, model: str) -> Iterator[RunFact]:
    before: str | None = None
    while page := list_runs(database, flow="score", model=model, status="completed", limit=_PAGE, before=before):
        yield from page
        before = page[-1].id


def last_scorings(database: Database, model: str) -> dict[str, str]:
    """The fingerprint of the scores of each scored prediction of a model, by its newest scoring."""
    found: dict[str, str] = {}
    for run in _scorings(database, model):
        kept = run.find_output("scores")
        known = kept.metadata.get(FINGERPRINTS, {}) if kept is not None else {}
        for prediction in scored_by(run):
            found.setdefault(prediction, known.get(prediction, ""))
    return found


def _once(tables: list[pd.DataFrame]) -> pd.DataFrame:
    rows = pd.concat(tables, ignore_index=True).sort_values("prediction", ascending=False)
    return rows.drop_duplicates(KEYS).sort_values(KEYS).reset_index(drop=True)


def _describe(one: LiveScores, champion: LiveScores | None) -> dict[str, Any]:
    scored = one.rows[one.rows[_METRIC].notna()]
    facts: dict[str, Any] = {
        "version": one.version.name,
        "number": one.version.number,
        "predictions": int(scored["prediction"].nunique()),
        "rows": len(scored),
        "first": str(scored["time_period"].min()),
        "last": str(scored["time_period"].max()),
        _METRIC: float(scored[_METRIC].mean()),
    }
    beside = None
    if champion is not None and champion is not one and _share(one, champion):
        found = compare({one.version.name: one.rows, "champion": champion.rows}, _METRIC, reference="champion")
        beside = asdict(found.rows[0])
    return facts | {"beside": beside}


def _share(one: LiveScores, other: LiveScores) -> bool:
    """Whether both have a score of the same forecast."""
    keys = [each.rows.loc[each.rows[_METRIC].notna(), KEYS] for each in (one, other)]
    return not keys[0].merge(keys[1], on=KEYS).empty


def _skill(one: LiveScores, champion: LiveScores) -> float:
    beside = _describe(one, champion)["beside"]
    return -1e9 if beside is None or beside["skill"] is None else float(beside["skill"])


def _source(one: LiveScores) -> dict[str, Any]:
    """Which forecasts were compared, as JSON values."""
    return {"version": one.version.name, "predictions": sorted(map(str, one.rows["prediction"].unique()))}
