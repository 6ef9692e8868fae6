"""How a value becomes bytes: the codec is picked by the value on writing, by its recorded name on reading."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pandas as pd
import pyarrow as pa

from chapkit_flows.artifacts import pickles, trees
from chapkit_flows.artifacts.estimators import SkopsCodec
from chapkit_flows.artifacts.store import Store, StoredObject
from chapkit_flows.artifacts.trees import StoredTree
from chapkit_flows.errors import ArtifactError, ArtifactTooLarge, ObjectMissing, UnpicklableModel
from chapkit_flows.places import PlaceModels, folder_names
from chapkit_flows.refs import ArtifactRef, canonical_json, new_id

ENTRY_POINTS = "chapkit_flows.codecs"
_PROBE_ROWS = 50
_PLACES = "places.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A value in the store; the fields that an `ArtifactRef` takes over."""

    digest: str
    size: int
    media_type: str
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecContext:
    """What a codec may need beside the value.

    Attributes:
        namespace: The globals of the model's module.
        folder: Where a folder is to be restored.
        allow_pickle: Whether reading may run code.
        max_bytes: How much may be read; 0 sets no limit.
    """

    namespace: Mapping[str, Any] | None = None
    folder: Path | None = None
    allow_pickle: bool = True
    max_bytes: int = 0


class Codec(Protocol):
    """One way to keep a value. Other packages offer theirs as entry points of the group `chapkit_flows.codecs`.

    A codec may have `libraries`, names of distributions: a manifest then records their versions.
    """

    name: str
    media_type: str

    def accepts(self, value: Any) -> bool:
        """Whether this codec gives back an equal value; asked when no codec is named."""

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredObject | StoredTree:
        """Write the value."""

    def load(self, store: Store, digest: str, context: CodecContext) -> Any:
        """Read it back."""


def save(store: Store, value: Any, *, codec: str | None = None, namespace: Mapping[str, Any] | None = None) -> Saved:
    """Store a value.

    Args:
        store: Where.
        value: A folder's path, a data frame, or any object that can be pickled.
        codec: The name of a codec; None picks one by the value.
        namespace: The globals of the model's module; its classes are kept by name, see `pickles`.

    Raises:
        UnpicklableModel: No other codec fits, and it cannot be pickled.
        ArtifactError: There is no such codec, or it cannot keep this value.
        StoreUnavailable: The store cannot be written.
    """
    chosen = _named(codec) if codec else next(one for one in _codecs() if one.accepts(value))
    stored = chosen.save(store, value, CodecContext(namespace=namespace))
    return Saved(digest=stored.digest, size=stored.size, media_type=chosen.media_type, codec=chosen.name)


def load(
    store: Store,
    ref: ArtifactRef,
    *,
    folder: Path | None = None,
    namespace: Mapping[str, Any] | None = None,
    allow_pickle: bool = True,
    max_bytes: int = 0,
) -> Any:
    """Read a stored value; of a stored folder, restore it into `folder` and return that path.

    Raises:
        ArtifactTooLarge: It has more than `max_bytes`, which are not read then.
        ObjectMissing: The store does not hold it.
        DigestMismatch: The stored bytes are damaged.
        UnpicklableModel: The pickle needs something that is gone, or pickles are not allowed.
        ArtifactError: There is no such codec.
    """
    # The recorded size of a folder is that of its files; of other artifacts the stored bytes count as well.
    size = max(ref.size, store.size(ref.digest) or 0) if max_bytes else 0
    if size > max_bytes:
        raise ArtifactTooLarge(
            f"The artifact {ref.id} has {size} bytes, and at most {max_bytes} may be loaded. If there is room for it, "
            "raise the setting max_load_bytes (PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_MAX_LOAD_BYTES)."
        )
    context = CodecContext(namespace=namespace, folder=folder, allow_pickle=allow_pickle, max_bytes=max_bytes)
    return _named(ref.codec).load(store, ref.digest, context)


@cache
def is_folder(codec: str) -> bool:
    """Whether what a codec has written is a list of files, which are objects of their own."""
    return any(one.name == codec and one.media_type == trees.MEDIA_TYPE for one in _codecs())


def libraries_of(codec: str) -> tuple[str, ...]:
    """The distributions that a codec names; none for `raw` and for a codec that is not installed."""
    return next((tuple(getattr(one, "libraries", ())) for one in _codecs() if one.name == codec), ())


class FolderCodec:
    """A folder, from its path."""

    name = "folder"
    media_type = trees.MEDIA_TYPE

    def accepts(self, value: Any) -> bool:
        """Any path object that names a folder; a string is a value."""
        return isinstance(value, os.PathLike) and Path(value).is_dir()

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredTree:
        """Store each file."""
        return trees.put_tree(store, Path(value))

    def load(self, store: Store, digest: str, context: CodecContext) -> Path:
        """Restore into the folder of the context."""
        if context.folder is None:
            raise ArtifactError(f"The artifact {digest} is a folder. Say where to restore it: load(…, folder=…).")
        trees.get_tree(store, digest, context.folder, max_bytes=context.max_bytes or trees.MAX_BYTES)
        return context.folder


class PlacesCodec:
    """The trained models of a model that is trained for each place: a folder with a part for each.

    `places.json` says which part is whose and by which codec it was written. Of a model that is a folder itself the
    part has its list of files, by which it is read alone, and the files.
    """

    name = "places"
    media_type = trees.MEDIA_TYPE

    def accepts(self, value: Any) -> bool:
        """These, and nothing that users make."""
        return isinstance(value, PlaceModels)

    def save(self, store: Store, value: PlaceModels, context: CodecContext) -> StoredTree:
        """Store each model that is not in the store yet, then the list of all."""
        parts = folder_names(value)
        files, listed = [], {}
        for place, model in value.kept.items():
            saved = model if isinstance(model, Saved) else save(store, model, namespace=context.namespace)
            listed[place] = {"part": parts[place], **asdict(saved)}
            files += _part_files(store, parts[place], saved)
        stored = store.put(io.BytesIO(canonical_json({"format": 1, "places": listed})))
        files.append(trees.TreeEntry(path=_PLACES, digest=stored.digest, size=stored.size))
        return trees.put_listing(store, files)

    def load(self, store: Store, digest: str, context: CodecContext) -> PlaceModels:
        """Read the list; each model is read when it is asked for."""
        files = {entry.path: entry.digest for entry in trees.list_tree(store, digest)}
        try:
            with store.open(files[_PLACES]) as file:
                listed = json.load(file)["places"]
            fields = tuple(Saved.__dataclass_fields__)
            kept = {place: Saved(**{name: part[name] for name in fields}) for place, part in listed.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"The folder {digest} has no list of places that can be read: {error!r}. Restore it from a backup."
            ) from error

        def read(saved: Saved) -> Any:
            own = context.folder / new_id() if context.folder else None
            return _named(saved.codec).load(store, saved.digest, replace(context, folder=own))

        return PlaceModels(kept, read)


class ParquetCodec:
    """A pandas data frame."""

    name = "parquet"
    media_type = "application/vnd.apache.parquet"

    def accepts(self, value: Any) -> bool:
        """Frames that Parquet gives back as they were: names are texts, no column of mixed objects."""
        if type(value) is not pd.DataFrame:
            return False
        dtypes = [*value.dtypes, *(value.index.get_level_values(level).dtype for level in range(value.index.nlevels))]
        if any(dtype.kind == "O" and dtype.name == "object" for dtype in dtypes) or any(
            type(name) is not str for name in value.columns
        ):
            return False
        probe = value.head(_PROBE_ROWS)
        sink = io.BytesIO()
        try:
            probe.to_parquet(sink, engine="pyarrow", index=_kept_index(probe))
            back = pd.read_parquet(sink, engine="pyarrow")
            pd.testing.assert_frame_equal(probe, back, check_exact=True, check_freq=False)
        except (AssertionError, ValueError, TypeError, pa.ArrowException):
            return False
        return True

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredObject:
        """Write it in one pass."""
        if not isinstance(value, pd.DataFrame):
            raise ArtifactError(f"The codec parquet keeps data frames; this is a {type(value).__qualname__}.")
        try:
            with store.writer() as sink:
                value.to_parquet(sink, engine="pyarrow", index=_kept_index(value))
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise ArtifactError(
                f"The data frame cannot be kept as Parquet: {error}. Give each column one type and a name of its own."
            ) from error
        return sink.stored

    def load(self, store: Store, digest: str, context: CodecContext) -> pd.DataFrame:
        """Read it."""
        with store.open(digest) as file:
            return pd.read_parquet(file, engine="pyarrow")


class CsvCodec:
    """A pandas data frame that any program should read; used only when it is named.

    CSV knows no types: only frames of texts and numbers that come back equal are kept, and no index.
    """

    name = "csv"
    media_type = "text/csv"

    def accepts(self, value: Any) -> bool:
        """Never by itself: Parquet keeps the types."""
        return False

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredObject:
        """Write it, and make sure before that reading gives it back."""
        if not isinstance(value, pd.DataFrame):
            raise ArtifactError(f"The codec csv keeps data frames; this is a {type(value).__qualname__}.")
        with tempfile.TemporaryFile() as file:
            value.to_csv(file, index=False, lineterminator="\n")
            file.seek(0)
            try:
                pd.testing.assert_frame_equal(value, _read_csv(file), check_exact=True)
            except (AssertionError, ValueError) as error:
                raise ArtifactError(
                    f"The data frame would not come back from CSV as it is: {' '.join(str(error).split())}. "
                    "Keep it with the codec parquet."
                ) from error
            file.seek(0)
            return store.put(file)

    def load(self, store: Store, digest: str, context: CodecContext) -> pd.DataFrame:
        """Read it."""
        with store.open(digest) as file:
            return _read_csv(file)


class JsonCodec:
    """Mappings and lists of plain values, readable by any program; used only when it is named.

    JSON has no NaN and no infinities: they are written as `{"$float": "nan"}`, `"inf"` or `"-inf"`, and a
    mapping that has a key beginning with `$` as `{"$dict": {…}}`.
    """

    name = "json"
    media_type = "application/json"

    def accepts(self, value: Any) -> bool:
        """Never by itself: a mapping that a model made must come back as itself."""
        return False

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredObject:
        """Write the one JSON text of the value."""
        text = json.dumps(_to_json(value, "$"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return store.put(io.BytesIO(text.encode()))

    def load(self, store: Store, digest: str, context: CodecContext) -> Any:
        """Read it."""
        with store.open(digest) as file:
            return _from_json(json.load(file))


class PickleCodec:
    """Anything else, through cloudpickle. Reading runs code."""

    name = "cloudpickle"
    media_type = "application/vnd.chapkit-flows.pickle"

    def accepts(self, value: Any) -> bool:
        """Everything; saving tells."""
        return True

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredObject:
        """Pickle straight into the store."""
        with store.writer() as sink:
            pickles.dump_model(value, sink, namespace=context.namespace)
        return sink.stored

    def load(self, store: Store, digest: str, context: CodecContext) -> Any:
        """Unpickle straight from the verified file."""
        if not context.allow_pickle:
            raise UnpicklableModel(
                f"The artifact {digest} is a pickle, and reading pickles is switched off, since it runs code. "
                "Allow it only for a store that nobody else can write, with the setting allow_pickle "
                "(PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_ALLOW_PICKLE=true)."
            )
        with store.open(digest) as file:
            return pickles.load_model(file, namespace=context.namespace)


@cache
def _codecs() -> tuple[Codec, ...]:
    """The codecs of other packages come before the pickle, which takes everything."""
    others = [entry.load()() for entry in entry_points(group=ENTRY_POINTS)]
    return (PlacesCodec(), FolderCodec(), *others, ParquetCodec(), CsvCodec(), JsonCodec(), SkopsCodec(), PickleCodec())


def _named(name: str) -> Codec:
    for codec in _codecs():
        if codec.name == name:
            return codec
    raise ArtifactError(
        f"There is no codec {name!r} here; there are: {', '.join(codec.name for codec in _codecs())}. "
        "Install the package that offers it."
    )


def _part_files(store: Store, part: str, saved: Saved) -> list[trees.TreeEntry]:
    """The objects of a model, which so belong to the folder of all, whoever looks after folders."""
    if not is_folder(saved.codec):
        return [trees.TreeEntry(path=f"{part}/model", digest=saved.digest, size=saved.size)]
    size = store.size(saved.digest)
    if size is None:
        raise ObjectMissing(f"The store {store.url} does not hold the object {saved.digest}. Train again.")
    files = [replace(entry, path=f"{part}/files/{entry.path}") for entry in trees.list_tree(store, saved.digest)]
    return [trees.TreeEntry(path=f"{part}/files.json", digest=saved.digest, size=size), *files]


def _read_csv(file: BinaryIO) -> pd.DataFrame:
    """Read what `CsvCodec` wrote: an empty field is missing, and NA is a text like any other."""
    return pd.read_csv(file, keep_default_na=False, na_values=[""])


def _kept_index(frame: pd.DataFrame) -> bool:
    """Whether the index says more than the number of the row."""
    index = frame.index
    counted = isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1
    return not counted or index.name is not None


def _to_json(value: Any, place: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, list):
        return [_to_json(item, f"{place}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        plain = {key: _to_json(item, f"{place}.{key}") for key, item in value.items()}
        return {"$dict": plain} if any(key.startswith("$") for key in plain) else plain
    raise ArtifactError(
        f"The value at {place}, of type {type(value).__qualname__}, has no form in JSON. "
        "Use mappings with text keys, lists, texts, numbers, true, false and None."
    )


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {"$float"}:
            return float(value["$float"])
        inner = value["$dict"] if value.keys() == {"$dict"} else value
        return {key: _from_json(item) for key, item in inner.items()}
    return value
