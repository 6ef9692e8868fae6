"""Fitted scikit-learn estimators in a form that is read without running code, through skops."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        what, remedy = f"The model, of type {type(value).__qualname__},", "Keep it with the codec cloudpickle."
        with _explained(f"{what} cannot be kept", remedy), tempfile.TemporaryFile() as file:
            _skops().dump(value, file)
            _check_trusted(file, what, remedy)
            return store.put(file)

    def load(self, store: Store, digest: str, context: CodecContext) -> Any:
        """Read the estimator, if all its types are trusted."""
        what = f"The artifact {digest}"
        remedy = "Install the versions of the packages that its manifest names, or train the model again."
        with store.open(digest) as file, _explained(f"{what} cannot be read", remedy):
            _check_trusted(file, what, "It is not loaded; train the model again.")
            return _skops().load(file)


def _skops() -> Any:
    try:
        return importlib.import_module("skops.io")
    except ImportError as error:
        raise ArtifactError(
            'Models of scikit-learn are kept by skops, which is not installed. Run: pip install "chapkit-flows[skops]"'
        ) from error


@contextmanager
def _explained(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise ArtifactError(f"{what} by skops: {error}. {remedy}") from error


def _untrusted(file: BinaryIO) -> list[str]:
    """The types that skops would not load by itself."""
    file.seek(0)
    found: list[str] = _skops().get_untrusted_types(file=file)
    return found


def _check_trusted(file: BinaryIO, what: str, remedy: str) -> None:
    """Refuse what holds other types; then the file is at its beginning.

    Raises:
        ArtifactError: It holds some.
    """
    if untrusted := _untrusted(file):
        raise ArtifactError(f"{what} holds types that skops does not trust: {', '.join(untrusted)}. {remedy}")
    file.seek(0)
