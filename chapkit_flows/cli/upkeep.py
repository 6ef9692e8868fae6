"""The commands that look after bytes and facts: trash, gc, fsck, backup, restore, rebuild, rehearse."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from chapkit_flows.artifacts.store import open_store
from chapkit_flows.cli.annotations import author_of
from chapkit_flows.cli.output import print_diagnostics, print_json, print_line, print_table, say, size_text, when
from chapkit_flows.cli.progress import show_uploads
from chapkit_flows.cli.selection import chosen_artifacts, confirm, has_filter, show_nothing, show_steps, show_survey
from chapkit_flows.errors import UpkeepError
from chapkit_flows.lineage.deletions import in_trash, list_deletions
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.registry import holders, version_of
from chapkit_flows.refs import Diagnostic
from chapkit_flows.resources import open_facts, open_resources
from chapkit_flows.upkeep import backups, bulk, trash
from chapkit_flows.upkeep.bulk import Thing, survey
from chapkit_flows.upkeep.collection import Collected, Policy, collect, explain, find_dead
from chapkit_flows.upkeep.integrity import Scope, check
from chapkit_flows.upkeep.recovery import rebuild
from chapkit_flows.upkeep.rehearsal import rehearse

_SHOWN = 50


def delete(options: argparse.Namespace) -> int:
    """Put artifacts into the trash."""
    database, doing = open_facts(), "put into the trash"
    if has_filter(options, options.ids) or options.dry_run:
        found = survey(chosen_artifacts(database, options, options.ids), lambda batch: _kept(database, batch))
        if options.dry_run:
            return show_survey(found, options, doing)
        if not found.matched:
            return show_nothing(options)
        confirm(found, options, doing)
        batches = chosen_artifacts(database, options, options.ids, newest=found.newest)
        steps = bulk.delete(open_resources(), batches, actor=author_of(options), reason=options.reason)
        return show_steps(steps, options, doing, total=found.matched)
    made = trash.delete(open_resources(), options.ids, actor=author_of(options), reason=options.reason)
    for deletion in made:
        _warn_of_aliases(database, deletion.artifact_id)
    if options.json:
        print_json({"deleted": [deletion.artifact_id for deletion in made]})
        return 0
    print_line(f"{len(made)} put into the trash." if made else "In the trash already.")
    if made:
        print_line(f"Bring back with:\n  chapkit-flows artifacts restore {' '.join(one.artifact_id for one in made)}")
    return 0


def _warn_of_aliases(database: Database, artifact_id: str) -> None:
    version = version_of(database, artifact_id)
    for alias, change in holders(database, version.model).items() if version else ():
        if version and change.number == version.number:
            name = f"{version.model}@{alias}"
            say(f"warning: {version.name} is {alias}: predictions with {name} are refused now.")


def _kept(database: Database, batch: Sequence[Thing]) -> set[str]:
    ids = {thing.id for thing in batch}
    return ids - set(in_trash(database, ids))


def restore_artifacts(options: argparse.Namespace) -> int:
    """Take artifacts out of the trash."""
    database, doing = open_facts(), "taken out of the trash"
    if has_filter(options, options.ids) or options.dry_run:
        batches = chosen_artifacts(database, options, options.ids, trash=True)
        if options.dry_run:
            found = survey(batches, lambda batch: in_trash(database, {thing.id for thing in batch}))
            return show_survey(found, options, doing)
        return show_steps(bulk.restore(open_resources(), batches, actor=author_of(options)), options, doing)
    back = trash.restore(open_resources(), options.ids, actor=author_of(options))
    if options.json:
        print_json({"restored": list(back)})
    else:
        print_line(f"{len(back)} taken out of the trash." if back else "Nothing of that is in the trash.")
    return 0


def show_trash(options: argparse.Namespace) -> int:
    """Print what is in the trash, the last deleted first."""
    found = list_deletions(open_facts(), limit=options.limit + 1, before=options.before)
    found, more = found[: options.limit], len(found) > options.limit
    if options.json:
        print_json({"deletions": [deletion.to_dict() for deletion in found]})
        return 0
    if not found:
        print_line("The trash is empty." if options.before is None else "No more.")
        return 0
    rows = [
        (one.artifact_id, when(one.deleted_at), one.actor, one.reason, "bytes may be gone" if one.swept_at else "")
        for one in found
    ]
    print_table(("id", "deleted", "by", "reason", ""), rows)
    if more:
        print_line(f"\nMore: --before {found[-1].id}")
    return 0


def gc(options: argparse.Namespace) -> int:
    """Remove objects that nobody needs, or say which and why."""
    policy = Policy(retention=timedelta(days=options.retention_days), grace=timedelta(days=options.grace_days))
    resources = open_resources()
    if options.explain:
        lines = explain(resources, options.explain, policy)
        if options.json:
            print_json({"id": options.explain, "reasons": lines})
        else:
            print_line("\n".join(lines))
        return 0
    found = find_dead(resources, policy) if options.dry_run else collect(resources, policy)
    if options.json:
        dead = [{**asdict(one), "modified": one.modified.isoformat()} for one in found.dead]
        print_json({**asdict(found), "dead": dead, "bytes": found.bytes, "dry_run": options.dry_run})
        return 0
    _print_collected(found, dry_run=options.dry_run)
    return 0


def _print_collected(found: Collected, *, dry_run: bool) -> None:
    if found.dead:
        rows = [(one.digest, size_text(one.size), one.reason) for one in found.dead[:_SHOWN]]
        print_table(("digest", "size", "why it is dead"), rows)
        if len(found.dead) > _SHOWN:
            print_line(f"… and {len(found.dead) - _SHOWN} more (--json lists them all)")
        print_line("")
    print_line(f"{found.live} objects are needed, {found.spared} are not but are too young to go.")
    amount = f"{len(found.dead)} objects, {size_text(found.bytes)}"
    print_line(f"Would remove {amount}." if dry_run else f"Removed {found.removed} of {amount}.")


def fsck(options: argparse.Namespace) -> int:
    """Check rows against bytes; 1 if something is wrong."""
    if options.set_aside and not options.bytes:
        raise UpkeepError("Whether bytes are damaged shows only when they are read. Add --bytes to --set-aside.")
    scope = Scope(
        read_bytes=options.bytes,
        set_aside=options.set_aside,
        share=options.sample,
        after=options.after or "",
        seed=options.seed,
    )
    count, last = 0, ""
    findings: list[Diagnostic] = []
    for checked in check(open_resources(), scope):
        count, last = count + 1, checked.artifact.id
        findings += checked.findings
        if not options.json:
            print_diagnostics(checked.findings)
            if count % 1000 == 0 and sys.stderr.isatty():
                say(f"{count} artifacts; to go on from here later: --after {last}")
    healthy = all(found.severity != "error" for found in findings)
    if options.json:
        print_json(
            {"healthy": healthy, "checked": count, "last": last, "findings": [asdict(found) for found in findings]}
        )
    else:
        print_line(f"{count} artifacts checked: {'all is well.' if healthy else 'see the errors above.'}")
    return 0 if healthy else 1


def backup(options: argparse.Namespace) -> int:
    """Write a backup; 1 if the store lacks something."""
    with show_uploads(options):
        made = backups.backup(open_resources(), open_store(options.to))
    if options.json:
        print_json({**asdict(made), "created_at": made.created_at.isoformat()})
    else:
        print_line(
            f"Backup {made.id} in {options.to}: {made.rows} rows, {made.objects} objects; "
            f"{made.copied} of them were new ({size_text(made.copied_bytes)})."
        )
        for digest in made.missing:
            print_line(f"Missing in the store, and so in the backup: {digest}")
    return 1 if made.missing else 0


def restore(options: argparse.Namespace) -> int:
    """Bring a backup back into the empty database and the store of the settings."""
    resources = open_resources()
    with show_uploads(options):
        found = backups.restore(open_store(options.source), resources, backup_id=options.backup)
    if options.json:
        print_json({"backup": found.id, "rows": found.rows, "objects": found.objects})
    else:
        print_line(
            f"Restored the backup {found.id} of {when(found.created_at)}: {found.rows} rows into "
            f"{resources.database.url}, {found.objects} objects into {resources.store.url}."
        )
    return 0


def rebuild_database(options: argparse.Namespace) -> int:
    """Make the database again from the manifests in the store; 1 if some cannot be read."""
    resources = open_resources()
    made = rebuild(resources)
    if options.json:
        findings = [asdict(found) for found in made.findings]
        print_json(
            {
                "runs": made.runs,
                "deletions": made.deletions,
                "annotations": made.annotations,
                "configs": made.configs,
                "registrations": made.registrations,
                "experiments": made.experiments,
                "findings": findings,
            }
        )
    else:
        print_diagnostics(made.findings)
        print_line(
            f"{made.runs} runs, {made.deletions} deletions, {made.annotations} tags and notes, "
            f"{made.configs} versions of saved configs, {made.registrations} entries of the registry, "
            f"{made.experiments} of experiments recorded in {resources.database.url}."
        )
    return 1 if made.findings else 0


def rehearse_disaster(options: argparse.Namespace) -> int:
    """Lose the database of a copy, rebuild it, compare; 1 if something is lost."""
    with _folder(options.folder) as folder:
        acts = rehearse(open_resources(), folder)
    passed = all(act.passed for act in acts)
    if options.json:
        print_json({"passed": passed, "acts": [asdict(act) for act in acts]})
    else:
        rows = [(act.name, "completed" if act.passed else "failed", act.detail) for act in acts]
        print_table(("step", "status", "detail"), rows)
        print_line("\nNothing would be lost." if passed else "\nSomething would be lost: see above.")
    return 0 if passed else 1


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    """An empty folder for a copy; one that was not named goes away afterwards."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix="chapkit-flows-rehearsal-") as folder:
            yield Path(folder)
        return
    if given.exists() and any(given.iterdir()):
        raise UpkeepError(f"The folder {given} is not empty. Name a new one.")
    given.mkdir(parents=True, exist_ok=True)
    yield given
