"""Pickled models: classes of the model's file under any module name, large arrays, and what cannot be pickled."""

from __future__ import annotations

import importlib.util
import io
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from chapkit_flows.artifacts.codecs import Saved, load, save
from chapkit_flows.artifacts.pickles import dump_model, load_model
from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import StoreUnavailable, UnpicklableModel
from chapkit_flows.refs import ArtifactRef, new_id

MODEL_FILE = """
import enum
from collections import namedtuple

class Season(enum.Enum):
    WET = 1
    DRY = 2

Point = namedtuple("Point", "x y")

class Forecaster:
    class Settings:
        lags = 3

    def __init__(self, rate):
        self.rate = rate
        self.settings = self.Settings()
        self.season = Season.WET
        self.link = double
        self.point = Point(1, 2)
        self.local = make_local()
        self.closure = lambda x: double(x) + rate
        self.method = self.predict

    def predict(self):
        return self.rate * 2

    @classmethod
    def make(cls):
        return cls(1)

def double(x):
    return 2 * x

def make_local():
    class Local(Forecaster.Settings):
        lags = 7
    return Local()

def on_train():
    return Forecaster(21)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "artifacts"))


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "forecaster.py"
    path.write_text(MODEL_FILE)
    return path


def import_path(path: Path, name: str) -> ModuleType:
    """Import a file as Prefect and `path.py:name` do: not registered in sys.modules."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dumped(value: Any, namespace: Mapping[str, Any] | None = None) -> io.BytesIO:
    sink = io.BytesIO()
    dump_model(value, sink, namespace=namespace)
    return sink


def check_forecaster(model: Any, module: ModuleType) -> None:
    """The model is one of this module's, in all its parts."""
    assert type(model) is module.Forecaster
    assert 42 == model.method()
    assert model.season is module.Season.WET
    assert model.link is module.double
    assert type(model.point) is module.Point
    assert type(model.settings) is module.Forecaster.Settings
    assert 7 == model.local.lags
    assert 31 == model.closure(5)


@pytest.mark.parametrize("registered", [False, True])
def test_classes_survive_another_module_name(
    model_file: Path, registered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was pickled under one name of its file is one of the classes under another name."""
    writer = import_path(model_file, "__prefect_loader_1__")
    if registered:
        monkeypatch.setitem(sys.modules, writer.__name__, writer)
    file = dumped(writer.on_train(), vars(writer))
    monkeypatch.delitem(sys.modules, writer.__name__, raising=False)
    reader = import_path(model_file, "chapkit_flows_model_2")
    check_forecaster(load_model(file, namespace=vars(reader)), reader)


def test_classes_of_a_script_survive(model_file: Path, store: Store) -> None:
    """A model that a script trained, in `__main__`, loads in another process that imports the script."""
    script = model_file.with_name("script.py")
    script.write_text(
        MODEL_FILE
        + "import sys\nfrom chapkit_flows.artifacts.codecs import save\n"
        + "from chapkit_flows.artifacts.store import open_store\n"
        + "saved = save(open_store(sys.argv[1]), on_train(), namespace=globals())\n"
        + "print(saved.digest, saved.size, saved.media_type, saved.codec)\n"
    )
    finished = subprocess.run(
        [sys.executable, str(script), store.url], capture_output=True, text=True, timeout=60, check=True
    )
    digest, size, media_type, codec = finished.stdout.split()
    ref = ref_to(Saved(digest=digest, size=int(size), media_type=media_type, codec=codec))
    reader = import_path(model_file, "another_name")
    model = load(store, ref, namespace=vars(reader))
    check_forecaster(model, reader)
    assert isinstance(model.local, reader.Forecaster.Settings)


def ref_to(saved: Saved) -> ArtifactRef:
    return ArtifactRef(
        id=new_id(),
        kind="training_workspace",
        digest=saved.digest,
        size=saved.size,
        media_type=saved.media_type,
        codec=saved.codec,
    )


@pytest.mark.parametrize("name", ["Forecaster", "Forecaster.Settings", "double"])
def test_name_that_is_gone(model_file: Path, name: str) -> None:
    """A class or function that the model's file no longer defines is an error that names it and the file."""
    writer = import_path(model_file, "writer")
    file = dumped(writer.on_train(), vars(writer))
    model_file.write_text(MODEL_FILE.replace(name.rpartition(".")[2], "Renamed"))
    reader = import_path(model_file, "reader")
    with pytest.raises(UnpicklableModel, match=rf"(?s)'{name}.*forecaster\.py no longer defines it"):
        load_model(file, namespace=vars(reader))


def test_namespace_that_is_absent(model_file: Path) -> None:
    """A pickle that needs the model's file says so when it is read without."""
    writer = import_path(model_file, "writer")
    file = dumped(writer.on_train(), vars(writer))
    with pytest.raises(UnpicklableModel, match="Forecaster"):
        load_model(file)
    file.seek(0)
    with pytest.raises(UnpicklableModel, match="through chapkit_flows"):
        pickle.load(file)


def test_model_without_a_file() -> None:
    """Without a namespace, cloudpickle keeps what cannot be imported by value."""
    offset = 3
    assert 5 == load_model(dumped(lambda x: x + offset))(2)


def test_package_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not installed any more is an error that names it."""
    (tmp_path / "vanishing_package.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("vanishing_package")
    file = dumped(module.Thing())
    monkeypatch.delitem(sys.modules, "vanishing_package")
    (tmp_path / "vanishing_package.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(UnpicklableModel, match="vanishing_package"):
        load_model(file)


def test_large_arrays_follow_the_pickle() -> None:
    """Large arrays lie behind the pickle as they are; small values make a plain pickle."""
    array = np.arange(100_000.0)
    content = dumped({"a": array, "same": array, "b": 1}).getvalue()
    assert 1 == content.count(array.tobytes())
    assert {"b": 1} == pickle.loads(dumped({"b": 1}).getvalue())
    back = load_model(io.BytesIO(content))
    np.testing.assert_array_equal(array, back["a"])
    assert back["a"] is back["same"]
    back["a"][0] = 1  # as before, the owner may write to it


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(60_000.0).reshape(200, 300),
        np.asfortranarray(np.arange(60_000.0).reshape(200, 300)),
        np.arange(60_000.0)[::2],
        np.zeros((0, 3)),
        np.arange(60_000) > 3,
        frozen(np.arange(60_000)),
        np.array([{"a": 1}, None], dtype=object),
    ],
    ids=["C", "Fortran", "stepped", "empty", "bool", "read-only", "objects"],
)
def test_arrays_come_back(array: np.ndarray) -> None:
    """Arrays of any order come back equal, as writable as they were."""
    back = load_model(dumped([array, "after"]))
    np.testing.assert_array_equal(array, back[0])
    assert (array.dtype, array.flags.writeable, "after") == (back[0].dtype, back[0].flags.writeable, back[1])


def test_large_things_of_all_kinds(store: Store) -> None:
    """Arrays, frames and bytes, large and small, in one model come back through the store."""
    value = {
        "frame": pd.DataFrame(np.random.default_rng(1).normal(size=(30_000, 5)), columns=list("abcde")),
        "texts": pd.Series([f"place {number}" for number in range(30_000)]),
        "bytes": bytes(range(256)) * 1000,
        "bytearray": bytearray(b"x" * 100_000),
        "arrays": [np.full(20_000, number) for number in range(20)],
        "small": list(range(50_000)),
    }
    back = load(store, ref_to(save(store, value)))
    pd.testing.assert_frame_equal(value["frame"], back.pop("frame"))
    pd.testing.assert_series_equal(value["texts"], back.pop("texts"))
    np.testing.assert_array_equal(value["arrays"], back.pop("arrays"))
    assert {key: value[key] for key in back} == back


def running() -> Iterator[int]:
    yield 1


class Holder:
    """A model that holds something."""

    def __init__(self, thing: Any) -> None:
        self.weights = np.zeros(100_000)
        self.thing = thing


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: (folder / "log").open("w"), "an open file"),
        (lambda folder: Path(__file__).open(), "an open file"),  # noqa: SIM115 (the test closes it)
        (lambda folder: Path(__file__).open("rb"), "an open file"),  # noqa: SIM115 (the test closes it)
        (lambda folder: threading.Lock(), "a lock"),
        (lambda folder: threading.RLock(), "a lock"),
        (lambda folder: sqlite3.connect(":memory:"), "a connection"),
        (lambda folder: running(), "a generator"),
    ],
    ids=["log", "text", "bytes", "Lock", "RLock", "sqlite3", "generator"],
)
def test_unpicklable_model(store: Store, tmp_path: Path, make: Any, reason: str) -> None:
    """A model that holds something of this process is an error with type and reason, and leaves nothing."""
    thing = make(tmp_path)
    try:
        with pytest.raises(UnpicklableModel, match=f"type Holder, cannot be pickled: it holds {reason}"):
            save(store, Holder(thing))
    finally:
        if hasattr(thing, "close"):
            thing.close()
    assert ["format.json"] == [path.name for path in Path(store.url).rglob("*") if path.is_file()]


class Refusing:
    """A model whose own code fails."""

    def __getstate__(self) -> dict[str, Any]:
        raise ValueError("I am not fitted")


def test_model_that_refuses(store: Store) -> None:
    """The model's own reason is passed on."""
    with pytest.raises(UnpicklableModel, match="type Refusing, cannot be pickled: I am not fitted"):
        save(store, Refusing())


def test_endless_nesting(store: Store) -> None:
    """A model that is nested too deep is an error, not a crash."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(UnpicklableModel, match="type list"):
        save(store, nested)


def test_store_that_fails_while_pickling(tmp_path: Path) -> None:
    """A failure of the store is not taken for one of the model."""
    (tmp_path / "artifacts").write_text("in the way")
    with pytest.raises(StoreUnavailable):
        save(open_store(str(tmp_path / "artifacts")), {"a": np.zeros(100_000)})


@pytest.mark.parametrize("content", [b"", b"\x80", b"not a pickle", b"\x80\x05", b"\x80\x05\x97."])
def test_bytes_that_are_no_pickle(content: bytes) -> None:
    """Bytes that are no pickle are an error."""
    with pytest.raises(UnpicklableModel, match="cannot be unpickled"):
        load_model(io.BytesIO(content))
