"""The commands that write facts or bytes to files: export, download."""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from chapkit_flows.cli.browse import artifact_json, default_name, download_one, write_artifact
from chapkit_flows.cli.output import print_json, print_line, say, whole_path
from chapkit_flows.cli.progress import show_count
from chapkit_flows.cli.selection import chosen_artifacts, chosen_runs, has_filter, show_nothing, show_survey
from chapkit_flows.errors import DataError, DigestMismatch, ObjectMissing
from chapkit_flows.lineage.annotations import load_tags
from chapkit_flows.lineage.engine import Database
from chapkit_flows.refs import ArtifactRef
from chapkit_flows.resources import open_facts, open_resources
from chapkit_flows.upkeep.bulk import Thing, survey

_ENDINGS = (".jsonl", ".csv")
_UNSAFE = re.compile(r"[/\\:\x00-\x1f\x7f]")


def export_runs(options: argparse.Namespace) -> int:
    """Write the facts of runs to a file."""
    database = open_facts()
    return _export(database, chosen_runs(database, options, options.ids), options)


def export_artifacts(options: argparse.Namespace) -> int:
    """Write the facts of artifacts to a file."""
    database = open_facts()
    return _export(database, chosen_artifacts(database, options, options.ids), options)


def _export(database: Database, batches: Iterator[Sequence[Thing]], options: argparse.Namespace) -> int:
    file: Path = options.out
    if file.suffix not in _ENDINGS:
        raise DataError(f"--out {file}: write a name that ends in {' or '.join(_ENDINGS)}.")
    if file.exists() and not options.force:
        raise DataError(f"{file} exists already. Choose another --out, or replace it with --force.")
    if options.dry_run:
        return show_survey(survey(batches), options, f"written to {file}")
    first = next(batches, None)
    if first is None:
        return show_nothing(options)
    count = 0
    with (
        whole_path(file) as part,
        part.open("w", encoding="utf-8", newline="") as sink,
        show_count("written", None, options) as tell,
    ):
        for batch in chain([first], batches):
            _write_facts(sink, _facts(database, batch), as_csv=file.suffix == ".csv", heading=count == 0)
            count += len(batch)
            tell(len(batch))
    if options.json:
        print_json({"dry_run": False, "matched": count, "path": str(file.absolute())})
    else:
        print_line(f"Wrote {count} {'line' if count == 1 else 'lines'} to {file}")
    return 0


def _facts(database: Database, batch: Sequence[Thing]) -> list[dict[str, Any]]:
    tags = load_tags(database, [thing.id for thing in batch])
    plain = [artifact_json(thing) if isinstance(thing, ArtifactRef) else thing.to_dict() for thing in batch]
    return [fact | {"tags": tags[fact["id"]]} for fact in plain]


def _write_facts(sink: TextIO, facts: Sequence[dict[str, Any]], *, as_csv: bool, heading: bool) -> None:
    """One line for each fact; in CSV what is no plain value is written as JSON."""
    if not as_csv:
        sink.writelines(f"{json.dumps(fact, ensure_ascii=False)}\n" for fact in facts)
        return
    table = csv.DictWriter(sink, fieldnames=list(facts[0]))
    if heading:
        table.writeheader()
    for fact in facts:
        table.writerow(
            {
                name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value
                for name, value in fact.items()
            }
        )


def download(options: argparse.Namespace) -> int:
    """Write an artifact to a file or a folder, or all that a filter chooses into a folder."""
    ids = [options.id] if options.id else []
    filtered = has_filter(options, ids)
    if filtered and options.out is None:
        raise DataError("Where to? Name a folder with --out FOLDER.")
    if options.dry_run:
        batches = chosen_artifacts(open_facts(), options, ids)
        target = options.out or Path()
        found = survey(batches, lambda batch: [one.id for one in _absent(batch, target)] if filtered else options.id)
        return show_survey(found, options, f"written to {target}")
    return _download_all(options) if filtered else download_one(options)


def _download_all(options: argparse.Namespace) -> int:
    """Write what is not in the folder yet; 1 if the bytes of something are missing or damaged."""
    resources, folder = open_resources(), options.out
    if not folder.parent.is_dir():
        raise DataError(f"There is no folder {folder.parent}. Make it first, or choose another --out.")
    matched, written = 0, 0
    failed: list[str] = []
    with show_count("written", None, options) as tell:
        for batch in chosen_artifacts(resources.database, options, []):
            folder.mkdir(exist_ok=True)
            matched += len(batch)
            for artifact in _absent(batch, folder):
                try:
                    write_artifact(resources, artifact, folder / _name(artifact), nullcontext())
                    written += 1
                except (ObjectMissing, DigestMismatch) as error:
                    failed.append(artifact.id)
                    say(f"{artifact.id}: {error}")
                tell(1)
    if options.json:
        result = {"dry_run": False, "matched": matched, "changed": written, "failed": failed}
        print_json(result | {"path": str(folder.absolute())})
    elif not matched:
        return show_nothing(options)
    else:
        there = matched - written - len(failed)
        print_line(f"Wrote {written} of {matched} to {folder}" + (f"; {there} were there already" if there else ""))
        if failed:
            print_line(f"{len(failed)} could not be written: see above, and look with: chapkit-flows fsck")
    return 1 if failed else 0


def _absent(batch: Sequence[Any], folder: Path) -> list[ArtifactRef]:
    return [artifact for artifact in batch if not (folder / _name(artifact)).exists()]


def _name(artifact: ArtifactRef) -> str:
    """A name of its own in a folder of many; a file of that name is the artifact, whole."""
    name = default_name(artifact)
    return name if name.startswith(artifact.id) else f"{artifact.id}-{_UNSAFE.sub('_', name)}"
