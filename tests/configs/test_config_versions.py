"""Config versions: digests, and the way back."""

from __future__ import annotations

import pytest
from config_kinds import KINDS, AliasKindConfig, DeeperKindConfig, NestedKindConfig, PlainKindConfig

from chapkit_flows import ModelConfig
from chapkit_flows.configs.versions import config_version, restore_config, with_horizon
from chapkit_flows.errors import InvalidConfig


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (PlainKindConfig(), PlainKindConfig(n_lags=3)),
        (PlainKindConfig(a=1, b=2), PlainKindConfig(b=2, a=1)),
        (PlainKindConfig(colour="blue"), PlainKindConfig(additional_options={"colour": "blue"})),
        (AliasKindConfig(n_lags=5), AliasKindConfig.model_validate({"n-lags": 5})),
        (AliasKindConfig(n_lags=5), AliasKindConfig.model_validate({"user_option_values": {"n-lags": 5}})),
        (NestedKindConfig(weights={"a": 1, "b": 2}), NestedKindConfig(weights={"b": 2, "a": 1})),
    ],
)
def test_equal_values_have_equal_digests(left: ModelConfig, right: ModelConfig) -> None:
    """However a value was written, the version it makes is the same."""
    assert config_version(left).digest == config_version(right).digest


def test_different_values_have_different_digests() -> None:
    """Each change of a value, of its type, of an undeclared value or of the block type makes another version."""
    configs = [
        PlainKindConfig(),
        PlainKindConfig(n_lags=4),
        PlainKindConfig(prediction_periods=4),
        PlainKindConfig(additional_continuous_covariates=["a", "b"]),
        PlainKindConfig(additional_continuous_covariates=["b", "a"]),
        PlainKindConfig(colour="blue"),
        PlainKindConfig(colour=1),
        PlainKindConfig(colour="1"),
        PlainKindConfig(colour=None),
        DeeperKindConfig(),
        NestedKindConfig(),
        NestedKindConfig(weights={}),
        NestedKindConfig(note=""),
    ]
    assert len(configs) == len({config_version(config).digest for config in configs})


async def test_name_and_reload_do_not_change_the_version(server: str) -> None:
    """A config has the same version before it is saved, after it is loaded, and under another name."""
    config = AliasKindConfig.model_validate({"n-lags": 7, "colour": "blue"})
    before = config_version(config)
    await config.asave("one", overwrite=True)
    await config.asave("two", overwrite=True)
    loaded = [config_version(await AliasKindConfig.aload(name)) for name in ("one", "two")]
    assert [(before.digest, "one"), (before.digest, "two")] == [(ref.digest, ref.name) for ref in loaded]
    assert (None, 7) == (before.name, before.content["n-lags"])


@pytest.mark.parametrize("config_type", [kind for kind in KINDS if kind.__name__ != "SecretKindConfig"])
def test_version_is_built_again(config_type: type[ModelConfig]) -> None:
    """A restored config equals the one that ran, undeclared values and name included."""
    config = config_type.model_validate(KINDS[config_type] | {"colour": "blue"})
    config._block_document_name = "saved"
    version = config_version(config)
    restored = restore_config(version, config_type)
    assert config == restored
    assert version == config_version(restored)


def test_version_that_no_longer_fits_names_the_field_and_the_remedy() -> None:
    """A class whose field has changed its type since refuses the old version."""
    version = config_version(PlainKindConfig.model_validate({"weights": "heavy"}))
    with pytest.raises(InvalidConfig, match=r"does not fit NestedKindConfig any more: weights: .*Restore the fields"):
        restore_config(version, NestedKindConfig)


def test_horizon_of_one_run_leaves_the_config_as_it_is() -> None:
    """A run's horizon is set on a copy."""
    config = AliasKindConfig.model_validate({"n-lags": 5, "colour": "blue"})
    copy = with_horizon(config, 9)
    assert (3, 9) == (config.prediction_periods, copy.prediction_periods)
    assert config.values() | {"prediction_periods": 9} == copy.values()
