"""How often a run asks the Prefect API: a fixed number of times, within a budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from command_line import MODELS, CommandLine, model, write_tables

from chapkit_flows import load_model
from chapkit_flows.flows.model import ModelFlow

# Requests of one run, as docs/deployments.md states them. The thread that sends Prefect's events may ask twice what it
# then remembers, so the bounds are two above what is usual; what is written is the same each time.
BUDGET = 10
BARE = 8
# Log lines go in batches by the clock; the other two a process asks once in a while, whatever it runs.
_BESIDE = ("/logs/", "/csrf-token", "/admin/version")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the requests that Prefect's clients really send; one that a busy server makes them repeat is one."""
    seen: Counter[str] = Counter()
    sent: list[httpx.Request] = []
    send = httpx.AsyncClient.send

    async def noting(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        path = _ID.sub("ID", request.url.path.removeprefix("/api"))
        if path not in _BESIDE and not any(request is one for one in sent):
            sent.append(request)
            seen[f"{request.method} {path}"] += 1
        return await send(client, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(httpx.AsyncClient, "send", noting)
        yield seen


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_tables(tmp_path_factory.mktemp("tables"))


def _writes(seen: Counter[str]) -> Counter[str]:
    return Counter({name: count for name, count in seen.items() if not name.startswith("GET")})


def _bare() -> None:
    async def bare() -> None:
        """Nothing."""

    ModelFlow(bare, name="bare", persist_result=False)()


def test_calls_stay_within_the_budget(
    server: str, home: Path, tables: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of each flow asks the server no more often than is stated, and a bare flow as often as was measured."""
    mean = load_model(model("mean"))
    data, historic, future = (str(tables[name]) for name in ("training", "historic", "future"))
    runs: dict[str, Callable[[], Any]] = {
        "train": lambda: mean.train(mean.config(), data),
        "retrain": lambda: mean.retrain(mean.config(samples=5), data),
        "nothing new": lambda: mean.retrain(mean.config(samples=5), data),
        "predict": lambda: mean.predict("mean@latest", historic, future),
    }
    found: dict[str, Counter[str]] = {}
    for name, run in {"bare": _bare, **runs}.items():
        with counted(monkeypatch) as found[name]:
            run()
    assert found["bare"].total() <= BARE, found["bare"]
    assert {} == {name: dict(seen) for name, seen in found.items() if seen.total() > BUDGET}
    beyond = {name: _writes(seen) - _writes(found["bare"]) for name, seen in found.items() if name != "bare"}
    assert {name: {"POST /artifacts/": 1, "PATCH /flow_runs/ID": 1} for name in runs} == beyond


def test_calls_do_not_grow_with_the_places(
    server: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model for each of 57 places is trained with as many requests as one model of all of them."""
    model = load_model(f"{MODELS.with_name('places.py')}:placed_function")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    data = write_tables(tmp_path / "tables", places=57)["training"]
    with counted(monkeypatch) as seen:
        model.train(model.config(), str(data))
    assert 57 == len((tmp_path / "calls.txt").read_text().splitlines())
    assert seen.total() <= BUDGET, seen


def test_calls_do_not_grow_with_the_data(
    server: str, home: Path, tables: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred times the rows are as many requests."""
    mean = load_model(model("mean"))
    frame = pd.read_csv(tables["training"])
    large = tmp_path / "large.csv"
    pd.concat([frame.assign(location=frame["location"] + f"_{n}") for n in range(100)]).to_csv(large, index=False)
    totals = []
    for data in (tables["training"], large):
        with counted(monkeypatch) as seen:
            mean.train(mean.config(), str(data))
        totals.append(seen)
    assert _writes(totals[0]) == _writes(totals[1])
    assert max(seen.total() for seen in totals) <= BUDGET


PLANNED = """
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class CountedConfig(ModelConfig):
    n_lags: int = 3

counted = Model(name="counted", config=CountedConfig, runner=FunctionalModelRunner(print, print))
"""


def test_documents_are_planned_together_and_applied_one_by_one(
    server: str, home: Path, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan asks as often for many documents as for few; applying asks once more for each that is new, no more."""
    (tmp_path / "counted.py").write_text(PLANNED)
    seen: dict[tuple[str, int], Counter[str]] = {}
    for count in (2, 12):
        documents = (
            f"block_type_slug: counted-config\nname: n{count}-{number}\nmodel: counted.py\n" for number in range(count)
        )
        (tmp_path / f"{count}.yaml").write_text("---\n".join(documents))
        for command in ("apply", "plan"):
            with counted(monkeypatch) as seen[command, count]:
                assert 0 == cli("blocks", command, tmp_path / f"{count}.yaml").code
    assert seen["plan", 2] == seen["plan", 12]
    assert seen["plan", 12].total() <= 4
    assert 12 == seen["apply", 12].pop("POST /block_documents/")
    assert 2 == seen["apply", 2].pop("POST /block_documents/")
    assert max(seen["apply", count].total() for count in (2, 12)) <= 10
