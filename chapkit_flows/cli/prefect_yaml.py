"""Entries of `prefect.yaml`, written so that all else in the file stays as its author left it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.util import load_yaml_guess_indent

from chapkit_flows.cli.output import whole_path
from chapkit_flows.errors import InvalidDeployment

HEAD = """\
# Deployments of forecasting models: chapkit-flows deploy writes entries, prefect --no-prompt deploy --all deploys them.
name: {name}

# Workers run the flows from this folder; on other machines, replace this step by a git_clone.
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{{{ $PWD }}}}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a deployment runs by itself.

    Attributes:
        timezone: None to keep that of the entry, or UTC for a new one.
    """

    cron: str
    timezone: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What an entry is to say. What else it says stays.

    Attributes:
        name: Of the deployment.
        entrypoint: `path/to/file.py:model.flow`.
        parameters: Those to set; others stay.
        pool: The work pool; None to keep that of the entry.
        schedule: None to keep those of the entry.
        new: What only an entry that is not there yet gets, such as a description.
    """

    name: str
    entrypoint: str
    parameters: Mapping[str, Any]
    pool: str | None = None
    schedule: Schedule | None = None
    new: Mapping[str, Any] = field(default_factory=dict)


class PrefectYaml:
    """A `prefect.yaml`, which need not be there yet.

    Raises:
        InvalidDeployment: The file is none that Prefect would read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.text = _read(file)
        self._newline = "\r\n" if "\r\n" in self.text else "\n"
        self._yaml = YAML()
        self._yaml.preserve_quotes = True
        self._yaml.width = 4096  # a line that its author did not break stays whole
        start = (self.text or HEAD.format(name=_name_of(file.parent))).replace("\r\n", "\n")
        try:
            self.content = self._yaml.load(start)
            _, indent, offset = load_yaml_guess_indent(start)
        except YAMLError as error:
            raise InvalidDeployment(f"{file} is not readable YAML: {' '.join(str(error).split())}") from error
        if not isinstance(self.content, CommentedMap):
            raise InvalidDeployment(f"{file} must be a mapping with the key deployments.")
        if offset is None:
            indent, offset = 4, 2
        self._yaml.indent(mapping=2, sequence=indent or 4, offset=offset)
        if not isinstance(self.content.get("deployments"), CommentedSeq | None):
            raise InvalidDeployment(
                f"{file}: deployments must be a list of entries, each with a name and an entrypoint."
            )

    @property
    def entries(self) -> list[CommentedMap]:
        """The deployments in their order."""
        return [entry for entry in self.content.get("deployments") or () if isinstance(entry, CommentedMap)]

    def find(self, name: str, entrypoint: str) -> CommentedMap | None:
        """The entry of a flow under a name, wherever its file was before."""
        flow = entrypoint.rpartition(":")[2]
        for entry in self.entries:
            if entry.get("name") == name and str(entry.get("entrypoint", "")).rpartition(":")[2] == flow:
                return entry
        return None

    def pools(self) -> list[str]:
        """The work pools that the entries name."""
        named = [entry.get("work_pool") for entry in self.entries]
        return list(dict.fromkeys(str(pool["name"]) for pool in named if isinstance(pool, Mapping) and "name" in pool))

    def put(self, wanted: Entry) -> CommentedMap:
        """Make the file say what is wanted, and return the entry."""
        entry = self.find(wanted.name, wanted.entrypoint)
        if entry is None:
            entry = self._append(wanted)
        _set(entry, "entrypoint", wanted.entrypoint)
        if wanted.pool is not None and dict(entry.get("work_pool") or {}).get("name") != wanted.pool:
            entry["work_pool"] = self._anchored({"name": wanted.pool})
        parameters = _own(entry, "parameters")
        for name, value in wanted.parameters.items():
            if parameters.get(name) != value:
                parameters[name] = self._anchored(value)
        if not parameters:
            del entry["parameters"]
        if wanted.schedule is not None:
            _set_schedule(entry, wanted)
        return entry

    def render(self) -> str:
        """The file as it is to be."""
        sink = StringIO()
        self._yaml.dump(self.content, sink)
        return sink.getvalue().replace("\n", self._newline)

    def write(self, text: str) -> None:
        """Replace the file.

        Raises:
            DataError: It cannot be written.
        """
        with whole_path(self.file) as part:
            part.write_text(text, encoding="utf-8", newline="")

    def _append(self, wanted: Entry) -> CommentedMap:
        if self.content.get("deployments") is None:
            self.content["deployments"] = CommentedSeq()
            self.content.yaml_set_comment_before_after_key("deployments", before="\n")
        entries = self.content["deployments"]
        entry = CommentedMap({"name": wanted.name, "entrypoint": wanted.entrypoint})
        entry.update(_commented(dict(wanted.new)))
        entries.append(entry)
        if len(entries) > 1:
            entries.yaml_set_comment_before_after_key(len(entries) - 1, before="\n")
        return entry

    def _anchored(self, value: Any) -> Any:
        """The same value from `definitions`, so that it is written as an alias; else the value itself."""
        definitions = self.content.get("definitions")
        for known in definitions.values() if isinstance(definitions, CommentedMap) else ():
            if isinstance(known, CommentedMap) and known.anchor.value and known == value:
                return known
        return _commented(value)


def _set(target: MutableMapping[str, Any], key: str, value: Any) -> None:
    if target.get(key) != value:
        target[key] = value


def _own(entry: CommentedMap, key: str) -> CommentedMap:
    """A mapping of an entry that no other entry shares by an alias."""
    found = entry.get(key)
    if not isinstance(found, CommentedMap):
        entry[key] = CommentedMap()
    elif found.anchor.value:
        entry[key] = CommentedMap(copy.copy(dict(found)))
    mapping: CommentedMap = entry[key]
    return mapping


def _set_schedule(entry: CommentedMap, wanted: Entry) -> None:
    """Set the one cron schedule of an entry, or that which has the name of the deployment."""
    assert wanted.schedule is not None
    schedules = entry.get("schedules")
    if not isinstance(schedules, CommentedSeq):
        schedules = entry["schedules"] = CommentedSeq()
    crons = [item for item in schedules if isinstance(item, CommentedMap) and "cron" in item]
    named = [item for item in crons if item.get("slug") == wanted.name]
    if not named and len(crons) != 1:
        # Without a slug each deploying would add the schedule once more.
        schedules.append(CommentedMap(slug=wanted.name))
        named = [schedules[-1]]
    schedule = (named or crons)[0]
    if "slug" not in schedule:
        schedule.insert(0, "slug", wanted.name)
    _set(schedule, "cron", wanted.schedule.cron)
    if wanted.schedule.timezone is not None or "timezone" not in schedule:
        _set(schedule, "timezone", wanted.schedule.timezone or "UTC")


def _commented(value: Any) -> Any:
    if isinstance(value, Mapping):
        return CommentedMap({key: _commented(item) for key, item in value.items()})
    return value


def _read(file: Path) -> str:
    if not file.exists():
        return ""
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDeployment(f"{file} cannot be read as UTF-8 text: {error}") from error


def _name_of(folder: Path) -> str:
    return folder.resolve().name or "models"
