"""A disaster, rehearsed on a copy: the database is lost, made again from the manifests, and compared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from chapkit_flows.artifacts.store import open_store
from chapkit_flows.lineage.dump import dump
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.refs import digest_of
from chapkit_flows.resources import Resources
from chapkit_flows.upkeep.backups import backup, restore
from chapkit_flows.upkeep.integrity import Scope, check
from chapkit_flows.upkeep.recovery import rebuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One step of the rehearsal.

    Attributes:
        passed: Whether it went as it should.
        detail: What was found, for people.
    """

    name: str
    passed: bool
    detail: str


def rehearse(resources: Resources, folder: Path) -> tuple[Act, ...]:
    """Copy bytes and facts to a folder, and there: restore the backup, lose the database, rebuild it, check all bytes.

    Args:
        resources: Are read only.
        folder: Empty; what is left there afterwards can be thrown away.
    """
    store = open_store(str(folder / "artifacts"))
    made = backup(resources, store)
    acts = [
        Act(
            name="backup",
            passed=not made.missing,
            detail=f"{made.rows} rows, {made.objects} objects, {made.copied_bytes} bytes copied"
            + (f", {len(made.missing)} objects missing, such as {made.missing[0]}" if made.missing else ""),
        )
    ]
    restored = open_database(f"sqlite:///{folder / 'restored.db'}")
    rebuilt = open_database(f"sqlite:///{folder / 'rebuilt.db'}")
    try:
        restore(store, Resources(store=store, database=restored))
        original = _rows(dump(restored))
        acts.append(
            Act(name="restore", passed=sum(map(len, original.values())) == made.rows, detail=f"{made.rows} rows")
        )
        found = rebuild(Resources(store=store, database=rebuilt))
        detail = (
            f"{found.runs} runs, {found.deletions} deletions, {found.annotations} tags and notes, {found.configs} "
            f"entries of configs, {found.registrations} of the registry, {found.experiments} of experiments from "
            "manifests"
        )
        acts.append(Act(name="rebuild", passed=not found.findings, detail=detail))
        acts.append(_compare(_without_running(original), _rows(dump(rebuilt))))
        acts.append(_check_bytes(Resources(store=store, database=rebuilt)))
    finally:
        restored.close()
        rebuilt.close()
    return tuple(acts)


def _rows(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    """The rows of each table by the digest of their text; the order in which databases sort does not count."""
    tables: dict[str, dict[str, str]] = {}
    for line in lines:
        document = json.loads(line)
        if "row" in document:
            text = json.dumps(document["row"], sort_keys=True)
            tables.setdefault(document["table"], {})[digest_of(text.encode())] = text
    return tables


def _without_running(tables: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Without the runs that had not ended: they write their manifest when they do."""
    runs = {
        digest: text
        for digest, text in tables.get("lineage_run", {}).items()
        if json.loads(text)["status"] != "running"
    }
    return tables | {"lineage_run": runs} if "lineage_run" in tables else tables


def _compare(expected: dict[str, dict[str, str]], actual: dict[str, dict[str, str]]) -> Act:
    different = []
    for table in sorted(expected.keys() | actual.keys()):
        lost = expected.get(table, {}).keys() - actual.get(table, {}).keys()
        if lost or actual.get(table, {}).keys() - expected.get(table, {}).keys():
            example = expected[table][min(lost)][:160] if lost else "rows that were not there"
            different.append(f"{table}: {len(lost)} rows differ, such as {example}")
    count = sum(map(len, expected.values()))
    detail = "; ".join(different) or f"all {count} rows of {len(expected)} tables are the same as before"
    return Act(name="compare", passed=not different, detail=detail)


def _check_bytes(resources: Resources) -> Act:
    artifacts, errors = 0, []
    for checked in check(resources, Scope(read_bytes=True)):
        artifacts += 1
        errors += [found.message for found in checked.findings if found.severity == "error"]
    detail = f"{artifacts} artifacts, every byte read" + (
        f"; {len(errors)} errors, such as: {errors[0]}" if errors else ""
    )
    return Act(name="check", passed=not errors, detail=detail)
