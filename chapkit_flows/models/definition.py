"""Where in the user's code a model or runner is defined."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGE = __name__.split(".", maxsplit=1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The module that defines a model.

    Attributes:
        file: Its source file; None in an interactive session.
        namespace: Its global names, live: names bound after the model was made are seen too.
    """

    file: Path | None
    namespace: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of the file; the working directory in an interactive session."""
        return self.file.parent if self.file else Path.cwd()

    @property
    def module(self) -> str | None:
        """The name by which it is imported, if it is part of a package."""
        name = str(self.namespace.get("__name__", ""))
        spec = self.namespace.get("__spec__")
        # Prefect loads the file of a deployment as a package of the file's name, which no other process can import.
        is_package = spec is not None and spec.submodule_search_locations is not None
        if is_package and self.file is not None and self.file.name != "__init__.py":
            return None
        return name if self.namespace.get("__package__") and name != "__main__" else None

    def name_of(self, value: object) -> str | None:
        """The global name that `value` is bound to, or None."""
        return next((name for name, bound in list(self.namespace.items()) if bound is value), None)


def find_definition() -> Definition:
    """The first module up the call stack that does not belong to this package."""
    frame = inspect.currentframe()
    while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    namespace = frame.f_globals if frame is not None else {}
    file = namespace.get("__file__")
    return Definition(file=Path(file).resolve() if file else None, namespace=namespace)


def _is_ours(module: str) -> bool:
    return module == _PACKAGE or module.startswith(f"{_PACKAGE}.")
