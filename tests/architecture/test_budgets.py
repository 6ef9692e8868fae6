"""The budgets of the house style, measured over the package: sizes, parameters, names, imports, handlers."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "chapkit_flows"
MODULES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
TREES = {name: ast.parse(text) for name, text in MODULES.items()}

Function = ast.FunctionDef | ast.AsyncFunctionDef

# Where any exception must be caught, and why.
BROAD_HANDLERS = {
    "chapkit_flows/flows/events.py": "a hook of somebody else can fail in any way",
    "chapkit_flows/flows/runners.py": "what a cluster fails with when a worker is lost has no base of its own",
    "chapkit_flows/flows/steps.py": "the model's own code can fail in any way",
    "chapkit_flows/lineage/engine.py": "closes the connections, then raises again",
    "chapkit_flows/models/places.py": "the model's own code can fail in any way: its reason is told with its place",
    "chapkit_flows/models/worker.py": "the model's own code can fail in any way: raised again where it is awaited",
    "chapkit_flows/models/discovery.py": "importing the user's file can fail in any way",
}
# Where a module is imported by name when it is first needed, and why.
LATE_IMPORTS = {
    "chapkit_flows/__init__.py": "importing Prefect and pandas takes seconds that --help must not pay",
    "chapkit_flows/artifacts/backends.py": "drivers of remote storage are optional extras",
    "chapkit_flows/artifacts/estimators.py": "skops and scikit-learn are an optional extra",
    "chapkit_flows/cli/main.py": "importing Prefect and pandas takes seconds that --help must not pay",
    "chapkit_flows/evaluation/comparison.py": "scipy takes a quarter of a second that a training must not pay",
    "chapkit_flows/evaluation/drift.py": "scipy takes a quarter of a second that a training must not pay",
    "chapkit_flows/evaluation/metrics.py": "scipy takes a quarter of a second that a training must not pay",
    "chapkit_flows/flows/runners.py": "Dask and Ray are optional extras",
    "chapkit_flows/flows/searches.py": "Optuna is an optional extra",
    "chapkit_flows/lineage/engine.py": "Alembic is needed once in the life of a database",
}


def _functions() -> Iterator[tuple[str, Function]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{name}:{node.lineno} {node.name}", node


def _code_lines(text: str, tree: ast.AST) -> set[int]:
    """The numbers of the lines that are neither blank nor only comment nor docstring."""
    ignored = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in ignored
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def _function_sizes() -> dict[str, int]:
    lines = {name: _code_lines(MODULES[name], tree) for name, tree in TREES.items()}
    return {
        place: len(lines[place.split(":")[0]] & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
        for place, node in _functions()
    }


def test_functions_are_short() -> None:
    """Nine functions in ten have at most 30 lines of code, and none has more than 50."""
    sizes = _function_sizes()
    assert {} == {place: size for place, size in sizes.items() if size > 50}
    assert statistics.quantiles(sizes.values(), n=10)[-1] <= 30


def test_modules_are_short() -> None:
    """No module has more than 500 lines."""
    assert {} == {name: size for name, text in MODULES.items() if (size := len(text.splitlines())) > 500}


def test_functions_have_few_parameters() -> None:
    """No function has more than six parameters beside self."""
    assert [] == [place for place, node in _functions() if len(_parameters(node)) > 6]


def _parameters(node: Function) -> list[str]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def test_modules_have_names_of_things() -> None:
    """No module is a drawer for what has no place."""
    drawers = {"utils", "util", "utilities", "helpers", "helper", "common", "misc", "manager", "managers"}
    assert [] == [name for name in MODULES if drawers & set(Path(name).with_suffix("").parts)]


def test_imports_stand_at_the_top() -> None:
    """No function imports a module, unless it is listed here with the reason."""
    inside = {
        f"{place.split(':')[0]}:{found.lineno}"
        for place, node in _functions()
        for found in ast.walk(node)
        if isinstance(found, ast.Import | ast.ImportFrom)
    }
    assert set() == inside
    assert set(LATE_IMPORTS) == {name for name, tree in TREES.items() if any(map(_imports_by_name, ast.walk(tree)))}


def _imports_by_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("import_module", "importlib.import_module")


def test_broad_handlers_are_listed() -> None:
    """No handler takes every exception, unless its module is listed here with the reason."""
    handlers = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node)
    ]
    assert sorted(BROAD_HANDLERS) == sorted(handlers)


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in caught)


def test_pickles_are_loaded_in_one_place() -> None:
    """Only what fits or predicts loads stored values without ruling out pickles."""
    places = [
        place.split(" ")[1]
        for place, node in _functions()
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) in ("load", "codecs.load")
        and not place.startswith(("chapkit_flows/testing/", "chapkit_flows/artifacts/codecs.py"))
        and "allow_pickle=False" not in ast.unparse(call)
    ]
    assert ["_load_trained", "_trained"] == sorted(places)


def test_no_import_cycle() -> None:
    """The modules can be put in an order in which each imports earlier ones only."""
    assert len(MODULES) == len(list(TopologicalSorter({name: _imported(name) for name in MODULES}).static_order()))


def _imported(name: str) -> set[str]:
    """The package's own modules that a module imports when it runs."""
    tree = TREES[name]
    for_types = {
        id(found)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for found in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            targets = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        paths = [target.replace(".", "/") for target in targets]
        found |= {path for stem in paths for path in (f"{stem}.py", f"{stem}/__init__.py") if path in MODULES}
    return found - {name}


@pytest.mark.parametrize("statement", [ast.Global, ast.Nonlocal])
def test_no_shared_state(statement: type[ast.AST]) -> None:
    """No function rebinds a name of its module or of the function around it."""
    assert [] == [name for name, tree in TREES.items() if any(isinstance(node, statement) for node in ast.walk(tree))]
