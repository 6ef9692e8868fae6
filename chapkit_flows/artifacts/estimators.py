"""Fitted scikit-learn estimators in a form that is read without running code, through skops."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from chapkit_flows.artifacts.store import Store, StoredObject
from chapkit_flows.errors import ArtifactError

if TYPE_CHECKING:
    from chapkit_flows.artifacts.codecs import CodecContext

# Parts of an estimator answer with any of these when they are taken apart or put together.
_FAILURES = (
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    RuntimeError,
    ImportError,
    EOFError,
    OSError,
    pickle.PickleError,
    zipfile.BadZipFile,
)


class SkopsCodec:
    """An estimator of scikit-learn whose parts are all of types that skops trusts.

    Decision trees and what is made of them are not trusted, since a forged one reads beyond its memory; nor are
    classes and functions of the model's own file. Estimators that hold such parts are pickled.
    """

    name = "skops"
    media_type = "application/vnd.chapkit-flows.skops"
    libraries = ("scikit-learn", "skops")

    def accepts(self, value: Any) -> bool:
        """Estimators that could be loaded again; scikit-learn is not imported to find out."""
        base = sys.modules.get("sklearn.base")
        if base is None or not isinstance(value, base.BaseEstimator) or importlib.util.find_spec("skops") is None:
            return False
        try:
            with tempfile.TemporaryFile() as file:
                _skops().dump(value, file)
                return not _untrusted(file)
        except _FAILURES:
            return False

    def save(self, store: Store, value: Any, context: CodecContext) -> StoredObject:
        """Write the estimator; refuse one that could not be loaded."""
        skops = _skops()
        try:
            with tempfile.TemporaryFile() as file:
                skops.dump(value, file)
                untrusted = _untrusted(file)
                if not untrusted:
                    file.seek(0)
                    return store.put(file)
        except _FAILURES as error:
            raise ArtifactError(
                f"The model, of type {type(value).__qualname__}, cannot be kept by skops: {error}. "
                "Keep it with the codec cloudpickle."
            ) from error
        raise ArtifactError(
            f"The model, of type {type(value).__qualname__}, holds types that skops does not trust: "
            f"{', '.join(untrusted)}. Keep it with the codec cloudpickle."
        )

    def load(self, store: Store, digest: str, context: CodecContext) -> Any:
        """Read the estimator, if all its types are trusted."""
        skops = _skops()
        with store.open(digest) as file:
            try:
                untrusted = _untrusted(file)
                if not untrusted:
                    file.seek(0)
                    return skops.load(file)
            except _FAILURES as error:
                raise ArtifactError(
                    f"The artifact {digest} cannot be read by skops: {error}. "
                    "Install the versions of the packages that its manifest names, or train the model again."
                ) from error
        raise ArtifactError(
            f"The artifact {digest} holds types that skops does not trust: {', '.join(untrusted)}. "
            "It is not loaded; train the model again."
        )


def _skops() -> Any:
    try:
        return importlib.import_module("skops.io")
    except ImportError as error:
        raise ArtifactError(
            'Models of scikit-learn are kept by skops, which is not installed. Run: pip install "chapkit-flows[skops]"'
        ) from error


def _untrusted(file: BinaryIO) -> list[str]:
    """The types that skops would not load by itself."""
    file.seek(0)
    found: list[str] = _skops().get_untrusted_types(file=file)
    return found
