"""Find a model by path or by the name of an installed one."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from chapkit_flows.errors import ChapkitFlowsError, ModelNotFound
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.refs import digest_of

GROUP = "chapkit_flows.models"
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def load_model(reference: str | Path) -> ModelContract:
    """Load a model.

    Args:
        reference: `path/to/file.py:name`; `path/to/file.py` if the file makes one model only;
            `package.module:name` of an installed module; or the name of an entry point in the group
            `chapkit_flows.models`.

    Raises:
        ModelNotFound: There is no such file, name or entry point, or the file cannot be imported.
    """
    path, _, name = str(reference).rpartition(":")
    if str(reference).endswith(".py"):
        path, name = str(reference), ""
    if path.endswith(".py"):
        return _from_file(Path(path).expanduser(), name)
    if _MODULE.fullmatch(path) and name.isidentifier():
        return _from_module(EntryPoint(name=str(reference), value=str(reference), group=GROUP))
    return _from_entry_point(str(reference))


def installed_models() -> dict[str, EntryPoint]:
    """The entry points of installed models, by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _from_file(path: Path, name: str) -> ModelContract:
    if not path.is_file():
        raise ModelNotFound(f"There is no file {path}. Write the path of the model's Python file, then :name.")
    module = _import_file(path.resolve())
    models = {key: value for key, value in vars(module).items() if isinstance(value, ModelContract)}
    different = list(dict.fromkeys(models.values()))
    if not name and len(different) == 1:
        return different[0]
    if name in models:
        return models[name]
    choices = ", ".join(f"{path}:{key}" for key in models) or "it makes none; write name = Model(...)"
    wanted = f"no model named {name!r}" if name else f"{len(different)} models, not one"
    raise ModelNotFound(f"{path} has {wanted}. Models there: {choices}.")


def _import_file(path: Path) -> ModuleType:
    """Import a file once per process, with its folder on the import path so that it finds its neighbours."""
    module_name = f"{path.stem}_{digest_of(str(path).encode())[7:15]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        with _importing(f"{path} cannot be imported"):
            spec.loader.exec_module(module)
    except ChapkitFlowsError:
        del sys.modules[module_name]
        raise
    return module


@contextmanager
def _importing(failure: str) -> Iterator[None]:
    """Say what went wrong, and where, in a module that is somebody else's: importing it can fail in any way."""
    try:
        yield
    except ChapkitFlowsError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
        place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
        raise ModelNotFound(f"{failure}: {type(error).__name__}: {error}{place}") from error


def _from_entry_point(name: str) -> ModelContract:
    points = installed_models()
    if name not in points:
        known = ", ".join(sorted(points)) or "none"
        raise ModelNotFound(
            f"No model {name!r}: write path/to/file.py:name, or the name of an installed model (installed: {known})."
        )
    return _from_module(points[name])


def _from_module(point: EntryPoint) -> ModelContract:
    with _importing(f"The installed model {point.name!r} ({point.value}) does not load"):
        model = point.load()
    if not isinstance(model, ModelContract):
        raise ModelNotFound(
            f"The entry point {point.name!r} ({point.value}) is of type {type(model).__name__}; it must name a Model."
        )
    return model
