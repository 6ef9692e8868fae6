"""Pickles of trained models: any size in little memory, and classes of the model's file by name.

An object is a pickle of protocol 5. Large buffers (arrays) follow it as they are, so that neither side holds
them twice: `pickle | buffer … | size of each buffer | number of buffers | magic`, numbers as 8 bytes, little
endian. Without large buffers it is a pickle and nothing else.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, BinaryIO

import cloudpickle
import numpy as np

from chapkit_flows.errors import UnpicklableModel

_MAGIC = b"CKFLOWS\x01"  # a pickle ends with a dot, so none ends with this
_LARGE = 1 << 16

# Pickling runs the code of whatever the model is made of, which answers with any of these.
_FAILURES = (
    pickle.PickleError,
    TypeError,
    AttributeError,
    ValueError,
    LookupError,
    RuntimeError,
    ImportError,
    EOFError,
    OSError,
    BufferError,
)

_CULPRITS = {
    r"_io\..*|file": "an open file",
    r"_thread\..*|.*Lock|.*Condition": "a lock",
    r".*[Cc]onnection": "a connection",
    r".*[Ss]ocket": "a network connection",
    r"generator|coroutine|async_generator": "a generator that is running",
    r"module": "a module",
}


def dump_model(value: Any, sink: BinaryIO, *, namespace: Mapping[str, Any] | None = None) -> None:
    """Pickle a value.

    Args:
        value: Anything; what cannot be found by name when loading is pickled by value.
        sink: Where the bytes go.
        namespace: The globals of the model's module. Its classes and functions are kept by name.

    Raises:
        UnpicklableModel: Some part of the value cannot be pickled.
    """
    large: list[pickle.PickleBuffer] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes < _LARGE:
            return True
        large.append(buffer)
        return False

    pickler = _ModelPickler(sink, namespace or {}, keep_in_band)
    try:
        pickler.dump(value)
    except _FAILURES as error:
        raise UnpicklableModel(_explain_dump(value, pickler.latest, error)) from error
    if large:
        views = [buffer.raw() for buffer in large]
        for view in views:
            sink.write(view)
        sink.write(struct.pack(f"<{len(views) + 1}Q", *(view.nbytes for view in views), len(views)) + _MAGIC)


def load_model(file: BinaryIO, *, namespace: Mapping[str, Any] | None = None) -> Any:
    """Read what `dump_model` wrote. Runs code: only for bytes of our own store.

    Args:
        file: Seekable.
        namespace: The globals of the model's module, whatever its name is in this process.

    Raises:
        UnpicklableModel: A class, function or package that the pickle needs is gone.
    """
    sizes, start = _find_buffers(file)
    file.seek(0)
    try:
        return _ModelUnpickler(file, namespace, _read_buffers(file, start, sizes)).load()
    except _FAILURES as error:
        raise UnpicklableModel(
            f"The stored model cannot be unpickled: {error}. "
            "Install the versions of the packages that its manifest names, or train it again."
        ) from error


def model_global(qualname: str) -> Any:
    """Stands in a pickle for a class or function of the model's file; `load_model` puts its own in place."""
    raise UnpicklableModel(f"The pickle needs {qualname!r} of its model's file. Load it through chapkit_flows.")


class _ModelPickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    def __init__(self, sink: BinaryIO, namespace: Mapping[str, Any], keep_in_band: Any) -> None:
        super().__init__(sink, protocol=5, buffer_callback=keep_in_band)
        self.latest: Any = None
        self._namespace = namespace
        self._module = namespace.get("__name__")

    def reducer_override(self, obj: Any) -> Any:
        self.latest = obj
        if isinstance(obj, type | FunctionType):
            if obj.__module__ == self._module and _look_up(self._namespace, obj.__qualname__) is obj:
                return model_global, (obj.__qualname__,)
        elif isinstance(obj, io.IOBase) and _has_descriptor(obj):
            # cloudpickle would put the content of a file that is open for reading into the model
            raise pickle.PicklingError("cannot pickle an open file")
        return super().reducer_override(obj)


class _ModelUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, namespace: Mapping[str, Any] | None, buffers: Iterator[Any]) -> None:
        super().__init__(file, buffers=buffers)
        self._namespace = namespace

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == model_global.__name__:
            return self._find_global
        return super().find_class(module, name)

    def _find_global(self, qualname: str) -> Any:
        if self._namespace is None:
            return model_global(qualname)
        found = _look_up(self._namespace, qualname)
        if found is None:
            place = self._namespace.get("__file__") or self._namespace.get("__name__") or "of the model"
            raise UnpicklableModel(
                f"The stored model needs {qualname!r}, and the model file {place} no longer defines it. "
                "Define it there again, or train the model again."
            )
        return found


def _look_up(namespace: Mapping[str, Any], qualname: str) -> Any:
    first, *rest = qualname.split(".")
    found = namespace.get(first)
    for name in rest:
        found = getattr(found, name, None)
    return found


def _has_descriptor(file: io.IOBase) -> bool:
    try:
        return file.fileno() > 2  # the standard streams are pickled by name
    except (OSError, ValueError):
        return False


def _explain_dump(value: Any, latest: Any, error: BaseException) -> str:
    culprit = f"{type(latest).__module__}.{type(latest).__qualname__}".removeprefix("builtins.")
    held = next((name for pattern, name in _CULPRITS.items() if re.fullmatch(pattern, culprit)), None)
    reason = f"it holds {held} ({culprit})" if held else str(error).rstrip(".")
    kind = type(value).__qualname__
    return (
        f"The trained model, of type {kind}, cannot be pickled: {reason}. "
        "Keep only plain data in what on_train returns, or open such things in on_predict."
    )


def _find_buffers(file: BinaryIO) -> tuple[tuple[int, ...], int]:
    """The sizes of the large buffers, and where the first one begins."""
    end = file.seek(0, os.SEEK_END)
    if end < 16:
        return (), end
    file.seek(end - 16)
    tail = file.read(16)
    if tail[8:] != _MAGIC:
        return (), end
    count = int.from_bytes(tail[:8], "little")
    index = end - 16 - 8 * count
    file.seek(index)
    sizes = struct.unpack(f"<{count}Q", file.read(8 * count))
    return sizes, index - sum(sizes)


def _read_buffers(file: BinaryIO, start: int, sizes: tuple[int, ...]) -> Iterator[Any]:
    """Each large buffer when the unpickler asks for it; the place of the pickle in the file is kept."""
    for size in sizes:
        place = file.tell()
        file.seek(start)
        buffer = np.empty(size, np.uint8)  # unlike bytearray, not filled with zeros first
        rest = buffer.data
        while rest:
            taken = file.readinto(rest)  # type: ignore[attr-defined]  # BinaryIO has it at run time
            if not taken:
                raise EOFError("it ends in the middle of an array")
            rest = rest[taken:]
        file.seek(place)
        start += size
        yield buffer
