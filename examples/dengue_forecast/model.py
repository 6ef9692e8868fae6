"""Dengue forecasts: per place, a regression on season, lagged rainfall and lagged temperature.

The logarithm of the cases is regressed on harmonics of the year and on the weather of the periods before, with a
ridge penalty. What the regression leaves unexplained is carried forward as a first-order autoregression whose
innovations are drawn from the training residuals (a residual bootstrap), which gives sample paths, not only a line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from pydantic import Field

from chapkit_flows import Diagnostic, FunctionalModelRunner, Model, ModelConfig


class DengueConfig(ModelConfig):
    """Settings of the dengue regression."""

    n_lags: int = Field(default=3, ge=1, le=12, description="How many past periods of weather count.")
    harmonics: int = Field(default=2, ge=1, le=6, description="Waves per year: more give a sharper season.")
    ridge: float = Field(default=2.0, gt=0, description="Strength of the penalty on large coefficients.")
    n_samples: int = Field(default=200, ge=1, description="Sample paths to draw per place.")
    seed: int = Field(default=0, description="Start of the random numbers: equal seeds give equal forecasts.")


@dataclass
class Place:
    """What was learnt about one place."""

    coefficients: np.ndarray
    residuals: np.ndarray
    persistence: float


@dataclass
class Fitted:
    """The trained model: one regression per place, and one over all of them for places it has not seen."""

    covariates: list[str]
    center: np.ndarray
    scale: np.ndarray
    places: dict[str, Place]
    overall: Place


def on_train(config, data, geo=None):
    """Fit one regression per place."""
    covariates = ["rainfall", "mean_temperature", *config.additional_continuous_covariates]
    frame = data.sort_values(["location", "time_period"])
    center, scale = frame[covariates].mean().to_numpy(), frame[covariates].std().replace(0, 1).to_numpy()
    designs = {
        place: (_design(rows, covariates, center, scale, config), np.log1p(rows["disease_cases"].to_numpy(float)))
        for place, rows in frame.groupby("location", sort=False)
    }
    places = {place: _fit(features, target, config.ridge) for place, (features, target) in designs.items()}
    everywhere = [np.concatenate(part) for part in zip(*designs.values(), strict=True)]
    return Fitted(covariates, center, scale, places, _fit(*everywhere, config.ridge))


def on_predict(config, model, historic, future, geo=None):
    """Draw sample paths for each place."""
    random = np.random.default_rng(config.seed)
    history = dict(list(historic.groupby("location", sort=False)))
    forecasts = []
    for name, ahead in future.groupby("location", sort=False):
        place = model.places.get(name, model.overall)
        past = history.get(name, historic.iloc[:0]).sort_values("time_period")
        rows = pd.concat([past, ahead.sort_values("time_period")])
        expected = _design(rows, model.covariates, model.center, model.scale, config) @ place.coefficients
        unexplained = np.log1p(past["disease_cases"].to_numpy(float)) - expected[: len(past)]
        known = unexplained[np.isfinite(unexplained)]
        carried = np.full(config.n_samples, known[-1] if len(known) else 0.0)
        for (_, row), level in zip(ahead.sort_values("time_period").iterrows(), expected[len(past) :], strict=True):
            carried = place.persistence * carried + random.choice(place.residuals, config.n_samples)
            cases = np.expm1(np.clip(level + carried, 0, 15)).round()
            samples = {f"sample_{number}": value for number, value in enumerate(cases)}
            forecasts.append({"time_period": row["time_period"], "location": name, **samples})
    return pd.DataFrame(forecasts)


def on_validate_train(config, data, geo=None):
    """Too short a history cannot show a season."""
    periods = data["time_period"].nunique()
    if periods < 12 + config.n_lags:
        message = f"{periods} periods are too few to learn a season from; bring at least {12 + config.n_lags}."
        return [Diagnostic.error("history_too_short", message, "data")]
    return []


def _design(rows, covariates, center, scale, config):
    """One line per row: intercept, harmonics of the time of year, weather of the periods before."""
    phase = 2 * np.pi * rows["time_period"].map(_share_of_year).to_numpy(float)
    waves = [wave(order * phase) for order in range(1, config.harmonics + 1) for wave in (np.sin, np.cos)]
    weather = (rows[covariates].to_numpy(float) - center) / scale
    # Missing weather counts as average weather.
    weather = np.nan_to_num(weather)
    before = np.zeros((config.n_lags, weather.shape[1]))
    lagged = [np.vstack([before[:lag], weather])[: len(weather)] for lag in range(1, config.n_lags + 1)]
    return np.column_stack([np.ones(len(rows)), *waves, *lagged])


def _share_of_year(period):
    """`2020-07` is 0.5; `2020-W27` is 0.5."""
    part = period.split("-")[1]
    return (int(part[1:]) - 1) / 52 if part.startswith("W") else (int(part) - 1) / 12


def _fit(features, target, ridge):
    """Ridge regression on the rows that have a target; the intercept is not penalised."""
    known = np.isfinite(target)
    x, y = features[known], target[known]
    penalty = ridge * np.eye(x.shape[1])
    penalty[0, 0] = 1e-9
    coefficients = np.linalg.solve(x.T @ x + penalty, x.T @ y)
    left = y - x @ coefficients
    before, after = left[:-1], left[1:]
    persistence = float(np.clip(before @ after / max(before @ before, 1e-9), 0, 0.95)) if len(left) > 2 else 0.0
    residuals = after - persistence * before if len(left) > 2 else np.zeros(1)
    return Place(coefficients, residuals - residuals.mean(), persistence)


dengue = Model(
    name="dengue",
    config=DengueConfig,
    runner=FunctionalModelRunner(on_train, on_predict, on_validate_train),
    period_type="any",
    required_covariates=["rainfall", "mean_temperature"],
    allow_free_additional_continuous_covariates=True,
    max_prediction_periods=52,
    metadata={"display_name": "Seasonal dengue regression", "author": "chapkit_flows"},
)
train, predict, validate = dengue.train, dengue.predict, dengue.validate
