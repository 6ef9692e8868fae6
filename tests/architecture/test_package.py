"""What the package promises to those who import it, install it and read it."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

import chapkit_flows
from chapkit_flows import errors
from chapkit_flows.configs.block import ModelConfig

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
# Adding a name is a promise to keep it; removing one breaks users.
PUBLIC_NAMES = [
    "ArtifactLocation",
    "BaseModelRunner",
    "ChapkitFlowsError",
    "ChapkitFlowsSettings",
    "Diagnostic",
    "FunctionalModelRunner",
    "Model",
    "ModelConfig",
    "PredictResult",
    "Project",
    "Resources",
    "ShellModelRunner",
    "TrainResult",
    "load_model",
    "open_resources",
    "report_progress",
    "rule",
]


def test_public_names() -> None:
    """The public names are these, sorted, and at most twenty."""
    assert PUBLIC_NAMES == chapkit_flows.__all__
    assert sorted(PUBLIC_NAMES) == chapkit_flows.__all__
    assert len(PUBLIC_NAMES) <= 20


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_is_documented(name: str) -> None:
    """Each public name can be imported, says what it is, and is known to type checkers."""
    assert inspect.getdoc(getattr(chapkit_flows, name))
    assert f"import {name} as {name}\n" in inspect.getsource(chapkit_flows)


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there fails as in any module."""
    with pytest.raises(AttributeError, match="module 'chapkit_flows' has no attribute 'Modell'"):
        chapkit_flows.Modell  # noqa: B018  # the access is what is tested


@pytest.mark.parametrize("module", ["chapkit_flows", "chapkit_flows.cli.main"])
def test_import_is_light(module: str) -> None:
    """Importing the package or its command loads neither Prefect nor pandas nor a database."""
    heavy = "prefect, pandas, numpy, pydantic, sqlalchemy, fsspec, rich"
    program = f"import sys, {module}; print(sorted(set('{heavy}'.split(', ')) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_version_is_said_once() -> None:
    """The package and its distribution have the same version."""
    assert PROJECT["version"] == chapkit_flows.__version__


def test_collection_entry_point() -> None:
    """Prefect finds the blocks through its group of entry points."""
    (point,) = entry_points(group="prefect.collections", name="chapkit_flows")
    assert PROJECT["entry-points"]["prefect.collections"]["chapkit_flows"] == point.value
    assert ModelConfig is point.load().ModelConfig
    assert chapkit_flows.ArtifactLocation is point.load().ArtifactLocation


def test_console_script() -> None:
    """The command `chapkit-flows` is the main function."""
    (point,) = entry_points(group="console_scripts", name="chapkit-flows")
    assert importlib.import_module("chapkit_flows.cli.main").main is point.load()


def test_types_are_shipped() -> None:
    """Type checkers read the package's annotations."""
    assert (Path(chapkit_flows.__file__).parent / "py.typed").is_file()


def test_error_tree_is_as_drawn() -> None:
    """The tree in the docstring of errors.py is the tree of its classes."""
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+)$", inspect.getdoc(errors) or "", flags=re.MULTILINE)
    parents: list[str] = []
    edges = {}
    for indent, name in drawn:
        parents[len(indent) // 4 :] = [name]
        edges[name] = parents[-2] if len(parents) > 1 else "Exception"
    assert {kind.__name__: kind.__bases__[0].__name__ for kind in ERRORS} == edges


@pytest.mark.parametrize("kind", ERRORS)
def test_error_has_a_default_message(kind: type[Exception]) -> None:
    """Each error has a docstring of its own, which is its default message: a sentence or two."""
    assert len((kind.__doc__ or "").split()) >= 5


def test_blocks_are_documents_only() -> None:
    """The folder blocks/ holds YAML with the known keys: no Python, no secret values."""
    files = [path for path in (ROOT / "blocks").rglob("*") if path.is_file()]
    assert {".yaml"} == {path.suffix for path in files}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?i)password|secret|token|api_?key|!!python", text), path
        for document in yaml.safe_load_all(text):
            assert {"block_type_slug", "name", "model", "fields"} >= set(document), path


def test_test_modules_have_names_of_their_own() -> None:
    """No two test modules have one name: pytest imports them by it, and would stop at the second."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [] == [name for name, times in names.items() if times > 1]


def test_no_path_of_a_machine() -> None:
    """No text of the repository names a folder or a package index of the machine it was written on."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode != 0:
        pytest.skip("not a git repository")
    own = [re.escape(str(path)) for path in (ROOT, Path(sys.prefix), Path.home()) if len(path.parts) > 2]
    forbidden = re.compile("|".join([r"(?<![\w.~-])/(home|root|Users|work)/\w", r"--(extra-)?index-url", *own]))
    found = []
    for name in listing.stdout.splitlines():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found += [f"{name}: {line.strip()}" for line in text.splitlines() if forbidden.search(line)]
    assert [] == found
