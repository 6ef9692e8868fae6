"""What was edited on the Prefect server, brought back to the YAML documents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.documents import BlockDocument, read_text
from chapkit_flows.configs.edits import REMOVED, Edit, edit_document, write_whole
from chapkit_flows.configs.plan import FieldChange, Plan, PlannedDocument, compare, read_saved
from chapkit_flows.configs.references import MASK
from chapkit_flows.configs.rules import FIELD
from chapkit_flows.errors import ConfigError

PullAction = Literal["updated", "created", "unchanged", "left"]
_OPTIONS = ("additional_options", "user_option_values")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What happened to one document.

    Attributes:
        file: Where it stands.
        changes: What differs: document against server.
        kept: The paths of those changes that were not written, for they are secret.
        note: Why it was left as it is, or what was not written.
        written: The config that document and server now agree on; None if nothing was written.
    """

    slug: str
    action: PullAction
    file: Path | None
    changes: tuple[FieldChange, ...] = ()
    kept: tuple[str, ...] = ()
    note: str = ""
    written: ModelConfig | None = None


def pull_documents(plan: Plan, path: Path, *, overwrite: bool = False, new: bool = False) -> Iterator[Pulled]:
    """Write what was edited on the server to the files, one after the other, and tell of each.

    Secret values are never written; references are.

    Args:
        plan: What applying the files would change.
        path: The file or folder that the plan was made from.
        overwrite: Whether a document that was edited as well, since it was applied, is overwritten.
        new: Whether documents are made for saved configs that have none.

    Raises:
        ConfigError: A file cannot be written.
    """
    for item in plan.documents:
        if item.action == "extra":
            yield _add(plan, item, path) if new else _left(item, "on the server only; --new makes a document of it")
        else:
            yield _pull(item, overwrite=overwrite)


def _pull(item: PlannedDocument, *, overwrite: bool) -> Pulled:
    assert item.document is not None and item.config is not None
    there = read_saved(type(item.config), item.saved) if item.saved else None
    if item.action == "unchanged":
        return Pulled(slug=item.slug, action="unchanged", file=item.document.file)
    if there is None:
        return _left(
            item, "what the server holds does not fit the class any more" if item.saved else "not on the server"
        )
    if item.action == "update" and item.applied is not None:
        return _left(item, "the file is newer than the server; apply it")
    if item.file_changed and item.applied is not None and not overwrite:
        return _left(item, "file and server were both changed since it was applied; --overwrite takes the server's")
    return _write(item, item.document, there)


def _left(item: PlannedDocument, note: str) -> Pulled:
    file = item.document.file if item.document else None
    return Pulled(slug=item.slug, action="left", file=file, changes=item.changes, note=note)


def _write(item: PlannedDocument, document: BlockDocument, there: ModelConfig) -> Pulled:
    assert item.config is not None
    changes = tuple(compare(item.config, there))
    values = _Sides(item.config.values(), there.values())
    edits = [Edit(path=_place(document, type(there), edit), value=edit.value) for edit in _edits(values, ())]
    kept = tuple(change.path for change in changes if _holds_mask(change.after))
    note = f"secret values differ and are never written: {', '.join(kept)}" if kept else ""
    if not edits:
        return Pulled(slug=item.slug, action="left", file=document.file, changes=changes, kept=kept, note=note)
    try:
        text = edit_document(read_text(document.file), document.index, edits)
    except ConfigError as error:
        return Pulled(slug=item.slug, action="left", file=document.file, changes=changes, note=str(error))
    write_whole(document.file, text)
    return Pulled(
        slug=item.slug,
        action="updated",
        file=document.file,
        changes=changes,
        kept=kept,
        note=note,
        written=None if kept else there,
    )


@dataclass(frozen=True, slots=True)
class _Sides:
    """Values of the file and of the server, secrets masked."""

    here: Any
    there: Any


def _edits(sides: _Sides, path: tuple[str, ...]) -> Iterator[Edit]:
    if isinstance(sides.here, dict) and isinstance(sides.there, dict):
        for key in dict.fromkeys([*sides.here, *sides.there]):
            inner = _Sides(sides.here.get(key, REMOVED), sides.there.get(key, REMOVED))
            yield from _edits(inner, (*path, key))
    elif not _holds_mask(sides.there) and (
        sides.here != sides.there or isinstance(sides.here, bool) != isinstance(sides.there, bool)
    ):
        yield Edit(path=path, value=sides.there)


def _holds_mask(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_mask, value.values()))
    if isinstance(value, list):
        return any(map(_holds_mask, value))
    return isinstance(value, str) and value == MASK


def _place(document: BlockDocument, config_type: type[ModelConfig], edit: Edit) -> tuple[str, ...]:
    """Where in the document a value stands: a field may be written by its name or an alias, an option further in."""
    first, *rest = edit.path
    if first == FIELD and document.written is not None and FIELD not in (document.written.value.get("fields") or {}):
        return ("rules", *rest)
    written = document.fields
    for name, field in config_type.model_fields.items():
        if first in (name, field.alias, field.serialization_alias):
            first = next((key for key in (field.alias, first, name) if key in written), first)
            return ("fields", first, *rest)
    nested = next((key for key in _OPTIONS if isinstance(written.get(key), dict) and first in written[key]), None)
    return ("fields", *((nested,) if nested else ()), first, *rest)


def _add(plan: Plan, item: PlannedDocument, path: Path) -> Pulled:
    """Make a document of a saved config, beside those of its type."""
    like = next(one for one in plan.documents if one.document and one.slug.split("/")[0] == item.slug.split("/")[0])
    assert like.document is not None and like.config is not None and item.saved is not None
    there = read_saved(type(like.config), item.saved)
    if there is None:
        return _left(item, "what the server holds does not fit the class any more")
    name = str(item.saved.name)
    file = path if path.is_file() else _free(path, like.document.block_type_slug, name)
    hidden: list[str] = []
    values = there.values()
    rules = values.pop(FIELD, None)
    content = {
        "block_type_slug": like.document.block_type_slug,
        "name": name,
        "model": _model_from(like.document, file),
        "fields": _with_references(values, (), hidden),
    } | ({"rules": rules} if rules else {})
    written = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    before = read_text(file) if file.exists() else ""
    write_whole(file, f"{before}{'' if before.endswith(chr(10)) else chr(10)}---\n{written}" if before else written)
    note = f"set {', '.join(hidden)}, or name where the secret is: the server's is not written" if hidden else ""
    return Pulled(
        slug=item.slug,
        action="created",
        file=file,
        kept=tuple(hidden),
        note=note,
        written=None if hidden else there,
    )


def _free(folder: Path, block_type: str, name: str) -> Path:
    plain = folder / f"{name}.yaml"
    return folder / f"{block_type}-{name}.yaml" if plain.exists() else plain


def _model_from(document: BlockDocument, file: Path) -> str:
    """The model as it is named from another file."""
    assert document.written is not None
    model = str(document.written.value["model"])
    if not model.partition(":")[0].endswith(".py") or Path(model).expanduser().is_absolute():
        return model
    return Path(os.path.relpath(document.model, file.parent.resolve())).as_posix()


def _with_references(value: Any, path: Sequence[str], hidden: list[str]) -> Any:
    """Values for a new document; a secret becomes a reference to an environment variable of its name."""
    if isinstance(value, dict):
        return {key: _with_references(item, (*path, key), hidden) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item, (*path, str(index)), hidden) for index, item in enumerate(value)]
    if value != MASK:
        return value
    name = "_".join("".join(c if c.isalnum() and c.isascii() else "_" for c in part) for part in path).upper()
    hidden.append(name)
    return f"${{env:{name}}}"
