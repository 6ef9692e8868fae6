"""The dengue model as deployed flows: prefect.yaml names them."""

from pathlib import Path

from chapkit_flows import load_model

_model = load_model(Path(__file__).parents[1] / "examples/dengue_forecast/model.py")
train, retrain, predict, backtest = _model.train, _model.retrain, _model.predict, _model.backtest
