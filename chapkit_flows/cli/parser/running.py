"""What the commands take that run a model: train, predict, validate."""

from __future__ import annotations

from pathlib import Path

from chapkit_flows.cli.parser.options import (
    MODEL_HELP,
    URI_HELP,
    Commands,
    add_command,
    add_config,
    add_force,
    add_geo,
    add_horizon,
)


def add_running(commands: Commands) -> None:
    """`train`, `predict` and `validate`."""
    train = add_command(commands, "train", "runs:train", "train a model")
    train.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    train.add_argument("--data", metavar="URI", required=True, help=f"training data: {URI_HELP}")
    add_geo(train)
    add_config(train)
    add_horizon(train)

    predict = add_command(commands, "predict", "runs:predict", "predict with a trained model")
    predict.add_argument(
        "artifact", metavar="ARTIFACT", help="the id that train printed, NAME@latest, NAME@champion or NAME@3"
    )
    predict.add_argument("--historic", metavar="URI", required=True, help=f"data up to the forecast: {URI_HELP}")
    predict.add_argument("--future", metavar="URI", required=True, help="covariates of the periods to predict")
    add_geo(predict)
    add_horizon(predict)
    predict.add_argument("--out", metavar="FILE", type=Path, help="also write the prediction there (.csv or .parquet)")
    add_force(predict)
    predict.add_argument("--model", metavar="MODEL", help="where the model is now, if its file has moved")

    validate = add_command(commands, "validate", "runs:validate", "check inputs without running the model")
    validate.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    validate.add_argument("--data", metavar="URI", help="training data, to check a training")
    add_config(validate)
    validate.add_argument("--artifact", metavar="ID", help="a trained model, to check a prediction")
    validate.add_argument("--historic", metavar="URI", help="data up to the forecast")
    validate.add_argument("--future", metavar="URI", help="covariates of the periods to predict")
    add_geo(validate)
