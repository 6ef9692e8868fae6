"""What a fold costs beside the model: what is sent with it, what is asked of the server, what a rerun does again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import pytest
from command_line import MODELS, write_tables
from prefect.client.orchestration import SyncPrefectClient

from chapkit_flows import Model, load_model
from chapkit_flows.artifacts.store import Store
from chapkit_flows.errors import InvalidSetting
from chapkit_flows.flows import backtest, pictures, skill
from chapkit_flows.flows.processes import ModelProcessPoolTaskRunner, make_process_runner

TRIED = MODELS.with_name("tried.py")
pytestmark = pytest.mark.usefixtures("server", "home")


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    model = load_model(f"{TRIED}:tried")
    assert isinstance(model, Model)
    return model


@contextmanager
def counted(owner: Any, *names: str) -> Iterator[Counter[str]]:
    """Count the calls of functions, which do what they do."""
    seen: Counter[str] = Counter()

    def counting(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            seen[name] += 1
            return inner(*arguments, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(owner, name, counting(name, getattr(owner, name)))
        yield seen


def test_a_task_is_sent_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent with a fold is small, also with a hundred times the places and megabytes in the model's file."""
    sizes: list[int] = []

    class Measuring(ModelProcessPoolTaskRunner):
        def _resolve_futures_and_submit(self, **named: Any) -> Any:
            sizes.append(len(cloudpickle.dumps({key: value for key, value in named.items() if key != "env"})))
            return super()._resolve_futures_and_submit(**named)

    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    file = tmp_path / "heavy.py"
    file.write_text(TRIED.read_text().replace("TriedConfig", "HeavyConfig") + "\n\nHEAVY = list(range(1_000_000))\n")
    model: Any = load_model(f"{file}:tried")
    for places in (2, 200):
        data = write_tables(tmp_path / str(places), places=places)["training"]
        given = make_process_runner(model.entrypoint, workers=1)
        runner = Measuring(max_workers=1, initializer=given._initializer, initargs=given._initargs)
        flow = model.backtest.with_options(task_runner=runner)
        result = flow(model.config(), str(data), plan={"periods": 2, "splits": 1, "pictures": False, "baselines": []})
        assert 1 == result.folds["done"]
    small, large = sizes
    assert max(small, large) < 64_000
    assert abs(large - small) < 200


def test_a_fold_costs_no_client(tried: Model, tmp_path: Path) -> None:
    """However many folds there are, their tasks share one client of the server, and each writes its two files."""
    found = {}
    for splits in (1, 4):
        data = write_tables(tmp_path / str(splits), places=splits + 1)["training"]
        plan = {"periods": 2, "splits": splits, "pictures": False, "baselines": []}
        with counted(SyncPrefectClient, "__init__") as clients, counted(Store, "write_manifest", "put") as writes:
            tried.backtest(tried.config(), str(data), plan=plan)
        found[splits] = clients["__init__"], writes["write_manifest"]
    assert found[1][0] == found[4][0] <= 2
    assert 3 == found[4][1] - found[1][1]


def test_a_rerun_scores_and_draws_nothing(tried: Model, tmp_path: Path) -> None:
    """A rerun takes scores and pictures from the store; other baselines are drawn, and nothing is scored again."""
    data = write_tables(tmp_path / "tables")["training"]
    done = []
    for baselines in (["climatology"], ["climatology"], ["persistence"]):
        plan = {"periods": 2, "splits": 2, "baselines": baselines}
        with (
            counted(pictures, "render_png") as drawn,
            counted(backtest, "score_split") as scored,
            counted(skill, "score_split") as others,
        ):
            tried.backtest(tried.config(), str(data), plan=plan)
        done.append((drawn.total(), scored.total(), others.total()))
    assert [(2, 2, 2), (0, 0, 0), (1, 0, 2)] == done


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "threads", "address": "tcp://127.0.0.1:8786"}, "take dask or ray"),
        ({"kind": "spark"}, "There is no task runner 'spark': choose threads, processes, dask, ray"),
        ({"kind": "processes", "workers": 0}, "0 workers can do nothing"),
    ],
)
def test_refused_runners(tried: Model, given: dict[str, Any], words: str) -> None:
    """A task runner that cannot be is refused before anything runs."""
    with pytest.raises(InvalidSetting, match=words):
        tried.task_runner(**given)


@pytest.mark.parametrize(("kind", "engine"), [("threads", "ModelThreadPool"), ("processes", "ModelProcessPool")])
def test_hints_bound_folds_at_once(tried: Model, kind: Literal["threads", "processes"], engine: str) -> None:
    """Of a model that needs two processors for a fold, half as many folds run at the same time."""
    wide = Model(name="wide", config=tried.config, runner=tried.runner, resources={"cpus": 2})
    for model, expected in ((tried, 4), (wide, 2)):
        runner: Any = model.task_runner(kind, workers=4)
        assert (f"{engine}TaskRunner", expected) == (type(runner).__name__, runner._max_workers)
