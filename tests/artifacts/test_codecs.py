"""Values: which codec keeps them, and that they come back equal."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chapkit_flows.artifacts import codecs
from chapkit_flows.artifacts.codecs import CodecContext, Saved, load, save
from chapkit_flows.artifacts.manifests import artifact_manifest
from chapkit_flows.artifacts.store import Store, StoredObject, open_store
from chapkit_flows.errors import ArtifactError, ArtifactTooLarge, DigestMismatch, UnpicklableModel, UnsafeTree
from chapkit_flows.refs import ArtifactRef, new_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "artifacts"))


def ref_to(saved: Saved) -> ArtifactRef:
    return ArtifactRef(
        id=new_id(),
        kind="training_workspace",
        digest=saved.digest,
        size=saved.size,
        media_type=saved.media_type,
        codec=saved.codec,
    )


PERIODS = pd.period_range("2020-01", periods=3, freq="M")
FRAMES = {
    "numbers": pd.DataFrame({"cases": [1, 2, 3], "rain": [0.5, math.nan, math.inf], "small": np.float32([1, 2, 3])}),
    "codes": pd.DataFrame({"location": ["001", "NA", None], "flag": [True, False, True]}),
    "nullable": pd.DataFrame({"n": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean")}),
    "categories": pd.DataFrame({"c": pd.Categorical(["b", "a"], categories=["b", "a", "z"], ordered=True)}),
    "times": pd.DataFrame(
        {"t": pd.date_range("2020-01-01", periods=2, tz="Asia/Vientiane"), "d": pd.to_timedelta([1, 2])}
    ),
    "periods": pd.DataFrame({"p": PERIODS}),
    "text index": pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="place")),
    "levels": pd.DataFrame({"x": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["p", "t"])),
    "filtered": pd.DataFrame({"x": range(9)})[::2],
    "no rows": pd.DataFrame({"x": pd.Series([], dtype="float64")}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_as_parquet(store: Store, name: str) -> None:
    """A data frame is kept as Parquet and comes back with its types and index."""
    saved = save(store, FRAMES[name])
    assert ("parquet", "application/vnd.apache.parquet") == (saved.codec, saved.media_type)
    pd.testing.assert_frame_equal(FRAMES[name], load(store, ref_to(saved)), check_freq=False)


def test_default_index_is_not_stored(store: Store) -> None:
    """The number of a row is no column of the file."""
    saved = save(store, pd.DataFrame({"x": [1, 2]}))
    with store.open(saved.digest) as file:
        assert ["x"] == pd.read_parquet(file, engine="pyarrow").columns.to_list()


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"mixed": [1, "a", {2}]}, dtype=object),
        pd.DataFrame([[1, 2]], columns=["same", "same"]),
        pd.DataFrame([[1, 2]], columns=[0, 1]),
        pd.DataFrame({"seconds": np.array(["2020-01-01"], "datetime64[s]")}),
        pd.DataFrame({"complex": [1j]}),
        pd.DataFrame(),
    ],
    ids=lambda frame: "-".join(map(str, frame.columns)),
)
def test_frame_that_parquet_would_change(store: Store, frame: pd.DataFrame) -> None:
    """A data frame that Parquet would not give back as it was is pickled."""
    saved = save(store, frame)
    assert "cloudpickle" == saved.codec
    pd.testing.assert_frame_equal(frame, load(store, ref_to(saved)))


def test_frame_that_parquet_cannot_keep(store: Store) -> None:
    """Parquet that was asked for by name and cannot keep the frame is an error; nothing is stored."""
    with pytest.raises(ArtifactError, match="one type"):
        save(store, pd.DataFrame({"mixed": [1, "a"]}, dtype=object), codec="parquet")
    with pytest.raises(ArtifactError, match="dict"):
        save(store, {}, codec="parquet")
    assert [] == list(Path(store.url).glob("objects/**/*"))


class LikeAFrame(pd.DataFrame):
    """A subclass, such as a table of shapes."""


@pytest.mark.parametrize(
    "value", [None, 0, "text", b"x", (1, [2]), {"a": {1: "x"}}, {"a": 1}, LikeAFrame({"x": [1]}), Path("a/b")], ids=repr
)
def test_other_values_are_pickled(store: Store, value: Any) -> None:
    """Whatever is neither folder nor data frame comes back as its own type."""
    saved = save(store, value)
    back = load(store, ref_to(saved))
    assert "cloudpickle" == saved.codec
    assert type(value) is type(back)
    assert repr(value) == repr(back)


CSV_FRAMES = {
    "numbers": pd.DataFrame({"n": [1, -2], "x": [0.1 + 0.2, 1e-300], "gap": [math.nan, 2.5]}),
    "texts": pd.DataFrame({"location": ["NA", 'Größe, "x"'], "gap": ["line\nbreak", None]}),
    "flags": pd.DataFrame({"flag": [True, False]}),
    "prediction": pd.DataFrame({"time_period": ["2020-01", "2020-02"], "location": ["a", "b"], "sample_0": [1.5, 2.0]}),
}


@pytest.mark.parametrize("name", CSV_FRAMES)
def test_frame_as_csv(store: Store, name: str) -> None:
    """A frame of texts and numbers comes back equal from CSV that any program reads, when that is asked for."""
    saved = save(store, CSV_FRAMES[name], codec="csv")
    assert ("csv", "text/csv") == (saved.codec, saved.media_type)
    pd.testing.assert_frame_equal(CSV_FRAMES[name], load(store, ref_to(saved)), check_exact=True)
    with store.open(saved.digest) as file:
        assert ",".join(CSV_FRAMES[name]) == file.readline().decode().rstrip()


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({"code": ["001", "002"]}),
        pd.DataFrame({"empty": ["", "x"]}),
        pd.DataFrame({"small": np.float32([1, 2])}),
        pd.DataFrame({"t": pd.date_range("2020-01-01", periods=2)}),
        pd.DataFrame({"x": [1, 2]}, index=["a", "b"]),
        pd.DataFrame(),
        {"x": [1]},
    ],
    ids=["codes", "empty text", "types", "times", "index", "no columns", "no frame"],
)
def test_value_that_csv_would_change(store: Store, value: Any) -> None:
    """What CSV would not give back as it is, such as codes with zeros in front, is refused, and nothing is stored."""
    with pytest.raises(ArtifactError, match=r"codec (parquet|csv)"):
        save(store, value, codec="csv")
    assert [] == store._backend.keys("objects")


def test_folder(store: Store, tmp_path: Path) -> None:
    """A path that names a folder is kept as a folder; its size is that of the files."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("content")
    saved = save(store, tmp_path / "source")
    assert ("folder", "application/vnd.chapkit-flows.tree+json", 7) == (saved.codec, saved.media_type, saved.size)
    target = load(store, ref_to(saved), folder=tmp_path / "target")
    assert tmp_path / "target" == target
    assert "content" == (target / "a.txt").read_text()


def test_folder_without_a_place(store: Store, tmp_path: Path) -> None:
    """Loading a folder needs a place to restore it."""
    (tmp_path / "source").mkdir()
    with pytest.raises(ArtifactError, match="folder="):
        load(store, ref_to(save(store, tmp_path / "source")))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["$float", "$dict"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(value=json_values)
def test_json_comes_back(value: Any) -> None:
    """Any plain value, with NaN, infinities and keys that look like the escapes, comes back from valid JSON."""
    store = open_store("memory://json")
    saved = save(store, value, codec="json")
    assert ("json", "application/json") == (saved.codec, saved.media_type)
    assert canonical(value) == canonical(load(store, ref_to(saved)))
    with store.open(saved.digest) as file:
        json.loads(file.read(), parse_constant=pytest.fail)


def canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    return repr(value)


@pytest.mark.parametrize("value", [{1: 2}, (1,), {"a": [b"x"]}, {"a": {"b": {1, 2}}}, 1j], ids=repr)
def test_value_without_a_form_in_json(store: Store, value: Any) -> None:
    """A value that JSON would change is refused, with its place."""
    with pytest.raises(ArtifactError, match=r"The value at \$"):
        save(store, value, codec="json")


def test_codec_that_is_absent(store: Store) -> None:
    """An unknown codec is an error that lists the known ones."""
    with pytest.raises(ArtifactError, match=r"no codec 'nope'.*folder, .*cloudpickle"):
        save(store, 1, codec="nope")


def test_pickles_switched_off(store: Store) -> None:
    """Where pickles are not allowed no byte of one is read, and other codecs go on working."""
    pickled, framed = save(store, {"a": 1}), save(store, FRAMES["numbers"])
    with pytest.raises(UnpicklableModel, match="switched off"):
        load(store, ref_to(pickled), allow_pickle=False)
    assert 3 == len(load(store, ref_to(framed), allow_pickle=False))


@pytest.mark.parametrize("kind", ["pickle", "frame", "folder"])
def test_value_that_is_too_large(store: Store, tmp_path: Path, kind: str) -> None:
    """What has more bytes than allowed is refused with both numbers before it is read; at the limit it is loaded."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(10_000))
    ref = ref_to(save(store, {"pickle": bytes(10_000), "frame": FRAMES["codes"], "folder": folder}[kind]))
    with pytest.raises(ArtifactTooLarge, match=f"{ref.size} bytes.*at most {ref.size - 1} .*max_load_bytes"):
        load(store, ref, folder=tmp_path / "target", max_bytes=ref.size - 1)
    assert not (tmp_path / "target").exists()
    load(store, ref, folder=tmp_path / "target", max_bytes=ref.size)


@pytest.mark.parametrize("kind", ["pickle", "folder"])
def test_recorded_size_that_is_too_small(store: Store, tmp_path: Path, kind: str) -> None:
    """A reference that understates the size does not get around the limit."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(bytes(10_000))
    ref = replace(ref_to(save(store, {"pickle": bytes(10_000), "folder": folder}[kind])), size=1)
    with pytest.raises(ArtifactTooLarge if kind == "pickle" else UnsafeTree, match="10"):
        load(store, ref, folder=tmp_path / "target", max_bytes=9_000)
    assert not (tmp_path / "target").exists()


def test_damaged_pickle_is_not_run(store: Store, tmp_path: Path) -> None:
    """Bytes that are not those that were stored never reach the unpickler."""
    saved = save(store, {"a": 1})
    path = Path(store.url) / "objects" / "sha256" / saved.digest[7:9] / saved.digest[9:]
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(b"cos\nabort\n(tR." + content)
    with pytest.raises(DigestMismatch, match=saved.digest):
        load(store, ref_to(saved))


class UpperCodec:
    """A codec as another package would offer it."""

    name = "upper"
    media_type = "text/plain"
    libraries = ("hypothesis", "not-installed")

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value.isupper()

    def save(self, store: Store, value: str, context: CodecContext) -> StoredObject:
        return store.put(io.BytesIO(value.lower().encode()))

    def load(self, store: Store, digest: str, context: CodecContext) -> str:
        with store.open(digest) as file:
            return file.read().decode().upper()


def test_codec_of_another_package(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that an installed package offers by entry point is picked by value and name; its libraries are noted."""
    information = tmp_path / "upper_codec-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: upper-codec\nVersion: 1\n")
    (information / "entry_points.txt").write_text(f"[{codecs.ENTRY_POINTS}]\nupper = {__name__}:UpperCodec\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    codecs._codecs.cache_clear()
    try:
        saved = save(store, "LOUD")
        assert ("upper", "text/plain") == (saved.codec, saved.media_type)
        assert "LOUD" == load(store, ref_to(saved))
        assert "cloudpickle" == save(store, "quiet").codec
        libraries = artifact_manifest(ref_to(saved), run_id=None)["libraries"]
        assert (version("hypothesis"), "unknown") == (libraries["hypothesis"], libraries["not_installed"])
    finally:
        codecs._codecs.cache_clear()
