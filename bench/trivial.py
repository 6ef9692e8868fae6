"""Models that do nothing, so that what is measured is this package."""

import numpy as np
import pandas as pd

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig


class TrivialConfig(ModelConfig):
    """No settings."""


def on_train(config, data, geo=None):
    """The mean of the target."""
    return {"mean": float(data["disease_cases"].mean())}


def on_predict(config, model, historic, future, geo=None):
    """The mean everywhere."""
    return future[["time_period", "location"]].assign(prediction=model["mean"])


def on_train_wide(config, data, geo=None):
    """Least squares on the four covariates, for each place."""
    columns = ["rainfall", "mean_temperature", "humidity", "population"]
    return {
        place: np.linalg.lstsq(rows[columns].to_numpy(), rows["disease_cases"].to_numpy(), rcond=None)[0]
        for place, rows in data.groupby("location", sort=False)
    }


trivial = Model(name="trivial", config=TrivialConfig, runner=FunctionalModelRunner(on_train, on_predict))
wide = Model(
    name="wide",
    config=TrivialConfig,
    runner=FunctionalModelRunner(on_train_wide, on_predict),
    required_covariates=["rainfall", "mean_temperature", "humidity", "population"],
)


def make_small(folder):
    """Two places, two years: training.csv, future.csv."""
    months = [str(period) for period in pd.period_range("2020-01", "2021-12", freq="M")]
    rows = [{"time_period": month, "location": place} for place in ("A", "B") for month in months]
    training = pd.DataFrame(rows).assign(disease_cases=range(len(rows)), rainfall=1.5)
    training.to_csv(folder / "training.csv", index=False)
    ahead = [{"time_period": f"2022-0{month}", "location": place} for place in ("A", "B") for month in (1, 2, 3)]
    pd.DataFrame(ahead).assign(rainfall=1.5).to_csv(folder / "future.csv", index=False)
