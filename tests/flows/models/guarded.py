"""A model whose config has validators that repeat its secret."""

from pydantic import SecretStr, ValidationInfo, field_validator, model_validator

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig

KEYS = ["time_period", "location"]


class GuardedConfig(ModelConfig):
    """Settings with a secret."""

    token: SecretStr = SecretStr("hush-hush-1234")
    shift: float = 0.0

    @field_validator("shift")
    @classmethod
    def above(cls, value: float, info: ValidationInfo) -> float:
        if value < 0:
            raise ValueError(f"{info.data['token'].get_secret_value()} allows no shift below 0")
        return value

    @model_validator(mode="after")
    def below(self):
        if self.shift > 5:
            raise ValueError(f"{self.token.get_secret_value()} allows no shift above 5")
        return self


guarded = Model(
    name="guarded",
    config=GuardedConfig,
    runner=FunctionalModelRunner(
        lambda config, data, geo=None: float(data["disease_cases"].mean()),
        lambda config, model, historic, future, geo=None: future[KEYS].assign(sample_0=model + config.shift),
    ),
    required_covariates=["rainfall"],
)
