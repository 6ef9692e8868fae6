"""The commands about saved configs and their history: list, show, history, diff, restore, use."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chapkit_flows.cli.annotations import author_of
from chapkit_flows.cli.output import flatten, print_facts, print_json, print_line, print_table, when
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import run_here
from chapkit_flows.configs.diff import describe, diff, markdown
from chapkit_flows.configs.documents import build_configs, read_documents
from chapkit_flows.configs.versions import config_version
from chapkit_flows.errors import ConfigNotFound, InvalidConfig
from chapkit_flows.flows.restoring import bring_back, read_saved
from chapkit_flows.lineage.configs import (
    config_history,
    find_entry,
    find_versions,
    get_version,
    list_heads,
    load_content,
)
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import ConfigEntry, ConfigHead, NewEntry
from chapkit_flows.lineage.query import get_run
from chapkit_flows.refs import ConfigRef
from chapkit_flows.resources import open_resources

_VERSION = re.compile(r"(.+)@(\d+)")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{4,64}")
_RUN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LIST = "See what there is: chapkit-flows configs list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A content that was named on the command line.

    Attributes:
        label: How it is called in what is printed.
        entry: The entry of the history that it is; None for what is in none.
    """

    label: str
    ref: ConfigRef
    entry: ConfigEntry | None = None


def list_(options: argparse.Namespace) -> int:
    """Print all named configs with their last version."""
    heads = list_heads(open_resources().database, block_type=options.type)
    if options.json:
        print_json({"configs": [head.entry.to_dict() | {"runs": head.runs} for head in heads]})
        return 0
    if not heads:
        print_line("No config was used or applied yet. Apply some with: chapkit-flows blocks apply blocks/")
        return 0
    rows = [
        (_slug(head.entry), head.entry.number, when(head.entry.created_at), *_how(head.entry), head.runs)
        for head in heads
    ]
    print_table(("config", "version", "since", "how", "by", "runs"), rows)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the content of a version."""
    database = open_resources().database
    found = _find(database, options.what, _last_recorded)
    if options.json:
        known = found.entry.to_dict() if found.entry else None
        print_json(
            {"config": found.label, "digest": found.ref.digest, "content": dict(found.ref.content), "entry": known}
        )
        return 0
    facts: list[tuple[str, object]] = [("Config", found.label), ("Digest", found.ref.digest)]
    if found.entry is not None:
        how, by = _how(found.entry)
        facts += [("Since", when(found.entry.created_at)), ("How", how), ("By", by)]
        facts += [("Note", found.entry.note)] if found.entry.note else []
    print_facts([*facts, ("Values", " "), *flatten(found.ref.content)])
    return 0


def history(options: argparse.Namespace) -> int:
    """Print all versions of a config, the newest first."""
    database = open_resources().database
    block_type, name = _find_name(database, options.name)
    entries = config_history(database, block_type, name)
    if not entries:
        raise ConfigNotFound(f"{block_type}/{name} has no recorded version. {_LIST}")
    if options.json:
        print_json({"config": f"{block_type}/{name}", "entries": [entry.to_dict() for entry in entries]})
        return 0
    rows = [
        (f"@{entry.number}", when(entry.created_at), *_how(entry), entry.note or "", entry.digest[7:19])
        for entry in reversed(entries)
    ]
    print_line(f"{block_type}/{name}\n")
    print_table(("version", "since", "how", "by", "note", "digest"), rows)
    return 0


def diff_(options: argparse.Namespace) -> int:
    """Print what differs between two contents; 1 if something does."""
    database = open_resources().database

    def saved(block_type: str, name: str) -> Found | None:
        ref = run_here(read_saved(block_type, name), options, follow=False)
        return Found(label=f"{block_type}/{name}", ref=ref) if ref else None

    left, right = (_find(database, text, saved) for text in (options.a, options.b))
    found = diff(dict(left.ref.content), dict(right.ref.content))
    if options.json:
        sides = [{"config": one.label, "digest": one.ref.digest} for one in (left, right)]
        print_json({"same": not found, "a": sides[0], "b": sides[1], "differences": [one.to_dict() for one in found]})
    elif options.md:
        print_line(markdown(found, left.label, right.label))
    elif found:
        print_line(f"{left.label} → {right.label}\n")
        print_line("\n".join(map(describe, found)))
    else:
        print_line(f"{left.label} and {right.label} are the same.")
    return 1 if found else 0


def restore(options: argparse.Namespace) -> int:
    """Make an older version the content of the saved config again."""
    if not _VERSION.fullmatch(options.version):
        raise InvalidConfig(
            f"{options.version!r} names no version. Write NAME@N, as `chapkit-flows configs history` does."
        )
    found = _find(open_resources().database, options.version, _last_recorded)
    assert found.entry is not None
    new = NewEntry(
        origin="restore",
        author=author_of(options),
        note=options.note or f"restores {found.label}",
        restored=found.entry.number,
    )
    return _bring(found.ref, new, options)


def use(options: argparse.Namespace) -> int:
    """Give a saved config the content of another one."""
    database = open_resources().database
    found = _find(database, options.source, _last_recorded)
    block_type, _, name = options.target.rpartition("/")
    if block_type and block_type != found.ref.block_type:
        raise InvalidConfig(
            f"{found.label} is of type {found.ref.block_type}, --as {options.target} of another. Name one of its type."
        )
    new = NewEntry(origin="use", author=author_of(options), note=options.note or f"content of {found.label}")
    return _bring(replace(found.ref, name=name), new, options, from_name=found.ref.name)


def _bring(ref: ConfigRef, new: NewEntry, options: argparse.Namespace, *, from_name: str | None = None) -> int:
    work = bring_back(open_resources(), ref, new, from_name=from_name)
    entry = run_here(work, options, follow=False)
    if options.json:
        print_json({"config": f"{ref.block_type}/{ref.name}", "entry": entry.to_dict() if entry else None})
    elif entry is None:
        print_line(f"{ref.block_type}/{ref.name} has that content already.")
    else:
        print_line(f"{ref.block_type}/{ref.name} is now version {entry.number}: {entry.note}.")
    return 0


def _find(database: Database, text: str, find_saved: Callable[[str, str], Found | None]) -> Found:
    """The content that a text names: a file, NAME@N, the id of a run, NAME, or the beginning of a digest.

    Raises:
        ConfigNotFound: There is none, or more than one.
    """
    if text.endswith((".yaml", ".yml")) or "yaml#" in text or "yml#" in text:
        return _read_file(text)
    version = _VERSION.fullmatch(text)
    if version is not None:
        entry, ref = get_version(database, *_find_name(database, version[1]), int(version[2]))
        return Found(label=entry.slug, ref=ref, entry=entry)
    if _RUN.fullmatch(text):
        return _of_run(database, text)
    named = _matching(database, text)
    if not named and _DIGEST.fullmatch(text.lower()):
        return _by_digest(database, text)
    block_type, name = _find_name(database, text)
    found = find_saved(block_type, name)
    if found is None:
        raise ConfigNotFound(f"There is no saved config {block_type}/{name}. {_LIST}")
    return found


def find_config(database: Database, text: str) -> tuple[str, ConfigRef]:
    """The label and the content of what a text names; of a name alone as it was last recorded.

    Raises:
        ConfigNotFound: There is none, or more than one.
    """
    found = _find(database, text, _last_recorded)
    return found.label, found.ref


def _last_recorded(block_type: str, name: str) -> Found | None:
    database = open_resources().database
    entries = config_history(database, block_type, name)
    if not entries:
        return None
    return Found(label=entries[-1].slug, ref=load_content(database, entries[-1]), entry=entries[-1])


def _of_run(database: Database, run_id: str) -> Found:
    run = get_run(database, run_id)
    if run.config is None:
        raise ConfigNotFound(f"The run {run.id} has no config: it ended before it was known.")
    entry = find_entry(database, run.config, at=run.started_at)
    return Found(label=f"run {run.id}" + (f" ({entry.slug})" if entry else ""), ref=run.config, entry=entry)


def _by_digest(database: Database, text: str) -> Found:
    found = find_versions(database, text)
    if not found:
        raise ConfigNotFound(f"No config has that name, and no version a digest that begins with {text!r}. {_LIST}")
    if len(found) > 1:
        digests = ", ".join(ref.digest for ref in found)
        raise ConfigNotFound(f"{text!r} is the beginning of several digests: {digests} … Write more of it.")
    return Found(label=found[0].digest[:19], ref=found[0])


def _read_file(text: str) -> Found:
    path, _, name = text.partition("#")
    documents = read_documents(Path(path))
    chosen = [one for one in documents if name in ("", one.name, one.slug)]
    if len(chosen) != 1:
        names = ", ".join(one.name for one in documents)
        reason = f"has no document {name!r}" if name else "holds several documents"
        raise ConfigNotFound(f"{path} {reason}: {names}. Write one as {path}#{documents[0].name}")
    ((document, config),) = build_configs(chosen, lambda reference: find_model(reference).config)
    ref = replace(config_version(config), name=document.name)
    return Found(label=f"{path}#{document.name}", ref=ref)


def _matching(database: Database, text: str) -> list[ConfigHead]:
    heads = list_heads(database)
    return [head for head in heads if text in (head.entry.name, _slug(head.entry))]


def _find_name(database: Database, text: str) -> tuple[str, str]:
    """Block type and name; the type may be left out where only one type has a config of that name."""
    block_type, slash, name = text.partition("/")
    if slash:
        return block_type, name
    slugs = [_slug(head.entry) for head in _matching(database, text)]
    if not slugs:
        raise ConfigNotFound(f"No config named {text!r} was used or applied. {_LIST}")
    if len(slugs) > 1:
        raise ConfigNotFound(f"Several configs are named {text!r}: {', '.join(slugs)}. Write one of these.")
    block_type, _, name = slugs[0].partition("/")
    return block_type, name


def _slug(entry: ConfigEntry) -> str:
    return f"{entry.block_type}/{entry.name}"


def _how(entry: ConfigEntry) -> tuple[Any, Any]:
    """How an entry came, and by whom."""
    how = f"{entry.origin} of @{entry.restored}" if entry.restored else entry.origin
    return how, entry.author
