"""The commands that say something of a run or an artifact after the fact: tags and notes."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Iterator, Mapping, Sequence

from chapkit_flows.cli.output import print_json, print_line
from chapkit_flows.cli.selection import chosen_artifacts, chosen_runs, show_steps, show_survey
from chapkit_flows.errors import LineageError
from chapkit_flows.lineage.annotations import check_keys
from chapkit_flows.lineage.query import get_artifact, get_run
from chapkit_flows.resources import Resources, open_facts, open_resources
from chapkit_flows.upkeep.annotations import add_note, remove_tags, set_tags
from chapkit_flows.upkeep.bulk import Thing, survey, tag, untagged


def tag_run(options: argparse.Namespace) -> int:
    """Set and remove tags of a run, or of all that a filter chooses."""
    ids, texts = _split_words(options)
    database = open_facts()
    return _tag(chosen_runs(database, options, ids), options, texts, alone=bool(ids))


def tag_artifact(options: argparse.Namespace) -> int:
    """Set and remove tags of an artifact, or of all that a filter chooses."""
    ids, texts = _split_words(options)
    database = open_facts()
    return _tag(chosen_artifacts(database, options, ids), options, texts, alone=bool(ids))


def note_run(options: argparse.Namespace) -> int:
    """Write a note on a run."""
    resources = open_resources()
    return _note(resources, get_run(resources.database, options.id).id, options)


def note_artifact(options: argparse.Namespace) -> int:
    """Write a note on an artifact."""
    resources = open_resources()
    return _note(resources, get_artifact(resources.database, options.id).id, options)


def _split_words(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The id, if there is one, and the tags: only these have a `=`."""
    words: list[str] = options.words
    return (words[:1], words[1:]) if words and "=" not in words[0] else ([], words)


def _tag(batches: Iterator[Sequence[Thing]], options: argparse.Namespace, texts: Sequence[str], *, alone: bool) -> int:
    given = dict(_split(text) for text in texts)
    if not given and not options.remove:
        raise LineageError("There is no tag to set or remove. Write KEY=VALUE, or --remove KEY.")
    check_keys(given)
    wanted: dict[str, str | None] = {**given, **dict.fromkeys(options.remove)}
    if options.dry_run:
        database = open_facts()
        return show_survey(survey(batches, lambda batch: untagged(database, batch, wanted)), options, "tagged")
    if alone:
        return _tag_one(next(batches)[0].id, options, given)
    return show_steps(tag(open_resources(), batches, wanted, by=author_of(options)), options, "tagged anew")


def _tag_one(subject_id: str, options: argparse.Namespace, given: Mapping[str, str]) -> int:
    resources, author = open_resources(), author_of(options)
    tags = set_tags(resources, subject_id, given, by=author)  # first, for it may refuse
    if options.remove:
        tags = remove_tags(resources, subject_id, options.remove, by=author)
    if options.json:
        print_json({"id": subject_id, "tags": tags})
    else:
        print_line(f"Tags of {subject_id}: {tags_text(tags) or 'none'}")
    return 0


def _note(resources: Resources, subject_id: str, options: argparse.Namespace) -> int:
    note = add_note(resources, subject_id, options.text, by=author_of(options))
    if options.json:
        print_json(note.to_dict())
    else:
        print_line(f"Noted on {subject_id}")
    return 0


def tags_text(tags: dict[str, str]) -> str:
    """Tags as they are written on the command line."""
    return " ".join(f"{key}={value}" for key, value in tags.items())


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise LineageError(f"{text!r} is not a tag. Write KEY=VALUE, for example site=A.")
    return key, value


def author_of(options: argparse.Namespace) -> str:
    """Who says or does something: `--by`, else the user of this computer."""
    if options.by is not None:
        return str(options.by)
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user that its system does not know
        return f"user {os.getuid()}"
