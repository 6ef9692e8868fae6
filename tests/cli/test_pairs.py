"""`why` and `compare` on every pair of kinds: what can be compared is compared, what cannot is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from command_line import CommandLine, write_tables

from chapkit_flows import Model, load_model, open_resources, registry
from chapkit_flows.lineage.query import get_run

MODEL_FILE = '''
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class LevelConfig(ModelConfig):
    """Settings of a model of one number."""
    shift: float = 0.0

def on_train(config, data, geo=None):
    return float(data["disease_cases"].mean()) + config.shift

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(**{f"sample_{n}": model + n for n in range(5)})

level = Model(name="level", config=LevelConfig, runner=FunctionalModelRunner(on_train, on_predict))
'''
PLAN = {"periods": 2, "splits": 3, "pictures": False, "baselines": []}


@pytest.fixture(scope="module")
def told(server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A home with two configs trained, backtested, predicted with and scored; and the names of all that there is."""
    folder = tmp_path_factory.mktemp("pairs")
    tables = write_tables(folder / "tables")
    truth = folder / "truth.csv"
    future = pd.read_csv(tables["future"], dtype={"time_period": str})
    pd.concat([pd.read_csv(tables["historic"], dtype={"time_period": str}), future.assign(disease_cases=5)]).to_csv(
        truth, index=False
    )
    names = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(folder / "home"))
        (folder / "level.py").write_text(MODEL_FILE)
        level = load_model(f"{folder / 'level.py'}:level")
        assert isinstance(level, Model)
        for number, shift in enumerate((0, 50), start=1):
            config = level.config(shift=shift)
            trained = level.train(config, str(tables["training"]))
            registry.register(open_resources(), trained.artifact_id, by="ana")
            predicted = level.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
            tested = level.backtest(config, str(tables["training"]), plan=PLAN)
            scored = level.score(str(truth), predicted.artifact_id)
            results = {"training": trained, "prediction": predicted, "backtest": tested, "scoring": scored}
            names |= {f"{kind} {number}": result.run_id for kind, result in results.items()}
            names |= {f"model {number}": trained.artifact_id, f"forecast {number}": predicted.artifact_id}
            names |= {f"scores {number}": tested.artifact_id, f"version {number}": f"level@{number}"}
            names[f"config {number}"] = config_of(trained.run_id)
        names["dataset"] = dataset_of(trained.run_id)
        open_resources().database.close()
    return folder / "home", names


def config_of(run_id: str) -> str:
    """How the command line names the config version of a run."""
    config = get_run(open_resources().database, run_id).config
    assert config is not None
    return config.digest


def dataset_of(run_id: str) -> str:
    return get_run(open_resources().database, run_id).inputs[0].artifact.id


@pytest.fixture
def names(told: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME", str(told[0]))
    return told[1]


CONFIG = "1 config value changed."
MODEL = "The predictions were made with two trained models. Their trainings differ:"
KINDS = "their results are never the same."
PAIRS = [
    ("training 1", "training 2", 1, (CONFIG, "shift: 0.0 → 50.0", "The results differ."), (MODEL,)),
    ("training 1", "training 1", 0, ("The results are the same bytes.",), (CONFIG,)),
    ("model 1", "version 2", 1, (CONFIG, "The results differ."), (MODEL,)),
    ("version 1", "version 2", 1, (CONFIG, "The results differ."), (MODEL,)),
    ("prediction 1", "prediction 2", 1, (MODEL, CONFIG, "The results differ."), (KINDS,)),
    ("forecast 1", "prediction 2", 1, (MODEL, CONFIG), (KINDS,)),
    ("backtest 1", "backtest 2", 1, (CONFIG, "Scores", "crps:"), (MODEL, KINDS)),
    ("scores 1", "backtest 2", 1, (CONFIG, "crps:"), (MODEL, KINDS)),
    ("training 1", "prediction 2", 1, (KINDS, CONFIG, "the training behind it is compared"), (MODEL,)),
    ("training 1", "prediction 1", 1, (KINDS, "made with the model of that training"), (MODEL, CONFIG)),
    ("prediction 2", "version 1", 1, (KINDS, "Of the first the training", CONFIG), (MODEL,)),
    ("training 1", "backtest 2", 1, ("a training, the second a backtest", CONFIG), (MODEL,)),
    ("prediction 1", "backtest 1", 1, (KINDS, "The same:"), (MODEL, CONFIG, "not deterministic")),
    ("scoring 1", "scoring 2", 1, ("The results differ.", "crps:"), (MODEL, KINDS)),
]
REFUSED = [
    ("training 1", "scoring 1", "is a training, {scoring 1} a scoring: there is nothing to compare."),
    ("backtest 1", "scoring 1", "is a backtest, {scoring 1} a scoring: there is nothing to compare."),
    ("config 1", "config 2", "is a config: there is no result to explain."),
    ("training 1", "config 1", "is a config: there is no result to explain."),
    ("dataset", "training 1", "No run made {dataset}: it came from outside."),
]


@pytest.mark.parametrize(("one", "other", "code", "said", "unsaid"), PAIRS)
def test_why(
    names: dict[str, str],
    cli: CommandLine,
    one: str,
    other: str,
    code: int,
    said: tuple[str, ...],
    unsaid: tuple[str, ...],
) -> None:
    """A pair is explained by what its results were made from; the words of another kind of pair are not said."""
    ended = cli("why", names[one], names[other])
    assert code == ended.code, ended
    assert [] == [words for words in said if words not in ended.out], ended.out
    assert [] == [words for words in unsaid if words in ended.out], ended.out


@pytest.mark.parametrize(("one", "other", "words"), REFUSED)
def test_why_refuses(names: dict[str, str], cli: CommandLine, one: str, other: str, words: str) -> None:
    """What has nothing in common is refused with the two kinds and the way out."""
    refused = cli("why", names[one], names[other])
    assert (2, "") == (refused.code, refused.out)
    assert words.format_map(names) in refused.err


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        ("training 1", "training 2", 12),
        ("version 1", "version 2", 12),
        ("backtest 1", "backtest 2", 12),
        ("version 1", "backtest 2", 12),
        ("forecast 1", "prediction 2", 6),
        ("training 1", "prediction 2", None),
        ("scoring 1", "scoring 2", None),
        ("config 1", "config 2", None),
        ("training 1", "config 2", None),
    ],
)
def test_compare(names: dict[str, str], cli: CommandLine, one: str, other: str, pairs: int | None) -> None:
    """A pair shows what differs, its config among it; scores are tested where both have forecast the same."""
    ended = cli("compare", names[one], names[other], "--json")
    assert 1 == ended.code, ended
    found = ended.json
    if "scoring" not in one:
        assert [0.0, 50.0] == next(row["values"] for row in found["rows"] if row["name"] == "shift")
    assert pairs == (found["scores"]["rows"][0]["n_pairs"] if found["scores"] else None)
