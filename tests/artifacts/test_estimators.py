"""Estimators of scikit-learn: kept without pickles where all their parts are trusted."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chapkit_flows.artifacts.codecs import Saved, load, save
from chapkit_flows.artifacts.manifests import artifact_manifest
from chapkit_flows.artifacts.store import Store, open_store
from chapkit_flows.errors import ArtifactError, DigestMismatch
from chapkit_flows.refs import ArtifactRef, new_id

skops = pytest.importorskip("skops.io", reason="needs the extra skops")
base = pytest.importorskip("sklearn.base")
linear = pytest.importorskip("sklearn.linear_model")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")
tree = pytest.importorskip("sklearn.tree")

X = np.arange(12.0).reshape(6, 2) ** 2
Y = X[:, 0] * 3 + 1


class OwnRegressor(base.RegressorMixin, base.BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator of the model's own file."""

    def fit(self, x: Any, y: Any) -> OwnRegressor:
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, x: Any) -> Any:
        return np.full(len(x), self.mean_)


def double(x: Any) -> Any:
    return x * 2


SAFE = {
    "linear": linear.LinearRegression(),
    "pipeline": pipeline.make_pipeline(preprocessing.StandardScaler(), linear.PoissonRegressor(alpha=0.1)),
    "random state": linear.SGDRegressor(random_state=np.random.RandomState(1)),
}
UNSAFE = {
    "tree": tree.DecisionTreeRegressor(),
    "own class": OwnRegressor(),
    "own function": pipeline.make_pipeline(preprocessing.FunctionTransformer(double), linear.Ridge()),
    "holds a lambda": pipeline.make_pipeline(preprocessing.FunctionTransformer(lambda x: x), linear.Ridge()),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "artifacts"))


def ref_to(saved: Saved, **changes: Any) -> ArtifactRef:
    fields = {name: getattr(saved, name) for name in ("digest", "size", "media_type", "codec")}
    return ArtifactRef(id=new_id(), kind="training_workspace", **(fields | changes))


@pytest.mark.parametrize("kind", SAFE)
def test_estimator_needs_no_pickle(store: Store, kind: str) -> None:
    """An estimator of trusted parts is kept by skops, and predicts the same where pickles are switched off."""
    fitted = SAFE[kind].fit(X, Y)
    saved = save(store, fitted)
    back = load(store, ref_to(saved), allow_pickle=False)
    assert ("skops", "application/vnd.chapkit-flows.skops") == (saved.codec, saved.media_type)
    np.testing.assert_array_equal(fitted.predict(X), back.predict(X))


@pytest.mark.parametrize("kind", UNSAFE)
def test_estimator_with_other_parts_is_pickled(store: Store, kind: str) -> None:
    """An estimator that holds what skops does not trust is pickled, and refused when skops is asked for by name."""
    fitted = UNSAFE[kind].fit(X, Y)
    saved = save(store, fitted)
    assert "cloudpickle" == saved.codec
    np.testing.assert_array_equal(fitted.predict(X), load(store, ref_to(saved)).predict(X))
    with pytest.raises(ArtifactError, match="cloudpickle"):
        save(store, fitted, codec="skops")


@pytest.mark.parametrize("value", [{"model": SAFE["linear"]}, linear.LinearRegression, 1], ids=type)
def test_other_values_are_left_alone(store: Store, value: Any) -> None:
    """What is no estimator itself is not for skops."""
    assert "cloudpickle" == save(store, value).codec


def test_types_that_are_not_trusted_are_refused(store: Store, tmp_path: Path) -> None:
    """An object that names a type that skops does not trust is not loaded, and nothing of it runs."""
    trap = preprocessing.FunctionTransformer(os.system).fit(X)
    sink = io.BytesIO()
    skops.dump(trap, sink)
    sink.seek(0)
    stored = store.put(sink)
    ref = ref_to(Saved(digest=stored.digest, size=stored.size, media_type="", codec="skops"))
    with pytest.raises(ArtifactError, match=r"does not trust: (posix|nt|os)\.system.*not loaded"):
        load(store, ref)


@pytest.mark.parametrize("content", [b"", b"PK", b"cos\nsystem\n(S'true'\ntR."])
def test_bytes_that_are_no_estimator(store: Store, content: bytes) -> None:
    """Bytes of another kind are an error that names the artifact."""
    stored = store.put(io.BytesIO(content))
    with pytest.raises(ArtifactError, match=stored.digest):
        load(store, ref_to(Saved(digest=stored.digest, size=stored.size, media_type="", codec="skops")))


def test_damaged_estimator(store: Store) -> None:
    """Bytes that are not those that were stored never reach skops."""
    saved = save(store, SAFE["linear"].fit(X, Y))
    path = Path(store.url) / "objects" / "sha256" / saved.digest[7:9] / saved.digest[9:]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(DigestMismatch, match=saved.digest):
        load(store, ref_to(saved))


def test_manifest_records_the_libraries(store: Store) -> None:
    """The manifest of an estimator names the versions of skops and scikit-learn; that of another artifact does not."""
    saved = save(store, SAFE["linear"].fit(X, Y))
    libraries = artifact_manifest(ref_to(saved), run_id=None)["libraries"]
    assert (version("skops"), version("scikit-learn")) == (libraries["skops"], libraries["scikit_learn"])
    assert "skops" not in artifact_manifest(ref_to(saved, codec="raw"), run_id=None)["libraries"]


@pytest.mark.parametrize("action", ["save", "load"])
def test_without_skops(store: Store, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    """Without skops an estimator is pickled; what skops keeps is an error that names the extra."""
    fitted = SAFE["linear"].fit(X, Y)
    kept = ref_to(save(store, fitted))
    for name in ("skops", "skops.io"):
        monkeypatch.setitem(sys.modules, name, None)
    if action == "save":
        assert "cloudpickle" == save(store, fitted).codec
        return
    with pytest.raises(ArtifactError, match=r"chapkit-flows\[skops\]"):
        load(store, kept)


def test_storing_other_values_does_not_import_scikit_learn(store: Store) -> None:
    """A model that is not of scikit-learn does not pay for importing it."""
    program = (
        "import sys; from chapkit_flows.artifacts.codecs import save; from chapkit_flows.artifacts.store import *; "
        "save(open_store(sys.argv[1]), {'a': 1}); print(sorted({'sklearn', 'skops'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, store.url], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
