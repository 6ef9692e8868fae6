"""A model whose file has moved since it was trained."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from sites import ROOT, run_program, script

from chapkit_flows.cli.main import main

DATA = ROOT / "examples/dengue_forecast/data"
MODEL = '''
from dataclasses import dataclass
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

class WanderingConfig(ModelConfig):
    """Settings of the mean."""

@dataclass
class Mean:
    by_place: dict

def on_train(config, data, geo=None):
    return Mean(data.groupby("location")["disease_cases"].mean().to_dict())

def on_predict(config, model, historic, future, geo=None):
    return future[["time_period", "location"]].assign(prediction=future["location"].map(model.by_place))

wandering = Model(name="wandering", config=WanderingConfig, runner=FunctionalModelRunner(on_train, on_predict))
'''


def test_predicts_from_where_the_model_is_now(
    server: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Predicting says that the model's file is not where it was, and works when told where it is now."""
    old, new = tmp_path / "old" / "wandering.py", tmp_path / "new" / "renamed.py"
    old.parent.mkdir()
    new.parent.mkdir()
    old.write_text(MODEL, encoding="utf-8")
    assert 0 == main(["train", str(old), "--data", str(DATA / "training.csv"), "--json"])
    trained = json.loads(capsys.readouterr().out)["artifact_id"]
    old.rename(new)
    predict = ["predict", trained, "--historic", str(DATA / "historic.csv"), "--future", str(DATA / "future.csv")]

    assert 2 == main(predict)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{old}:wandering, which is not there" in said
    assert "--model MODEL" in said

    # Another process, as it would be: one process cannot define a config type twice.
    run_program(
        [script("chapkit-flows"), *predict, "--model", new, "--out", tmp_path / "forecast.csv"],
        folder=tmp_path,
        environment=os.environ,
    )
    assert 1 + 15 == len((tmp_path / "forecast.csv").read_text().splitlines())
