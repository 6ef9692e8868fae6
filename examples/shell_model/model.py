"""A model that is two commands. They are Python here, and could be in any language."""

import shlex
import sys

from pydantic import Field

from chapkit_flows import Model, ModelConfig, ShellModelRunner


class SeasonalConfig(ModelConfig):
    """Settings of the seasonal mean."""

    n_samples: int = Field(default=100, ge=1, description="Samples to draw per place and period.")
    seed: int = Field(default=0, description="Start of the random numbers.")


python = shlex.quote(sys.executable)

seasonal = Model(
    name="seasonal",
    config=SeasonalConfig,
    runner=ShellModelRunner(
        train_command=f"{python} scripts/train.py {{data_file}}",
        predict_command=f"{python} scripts/predict.py {{future_file}} {{output_file}}",
    ),
)
train, predict = seasonal.train, seasonal.predict
