"""The config block: its type, its undeclared fields, its aliases."""

from __future__ import annotations

import pytest
from config_kinds import (
    KINDS,
    AliasKindConfig,
    BareKindConfig,
    DeeperKindConfig,
    PlainKindConfig,
    SecretKindConfig,
)
from prefect.client.orchestration import get_client
from pydantic import ValidationError

from chapkit_flows import ModelConfig


@pytest.mark.parametrize(
    ("config_type", "name", "slug"),
    [
        (ModelConfig, "Model Config", "model-config"),
        (PlainKindConfig, "Plain Kind Config", "plain-kind-config"),
        (DeeperKindConfig, "Deeper Kind Config", "deeper-kind-config"),
        (BareKindConfig, "Bare Kind Config", "bare-kind-config"),
    ],
)
def test_each_class_is_a_block_type_of_its_own(config_type: type[ModelConfig], name: str, slug: str) -> None:
    """A class, a subclass and a subclass of that have the names and slugs of their own class names."""
    assert name == config_type.get_block_type_name()
    assert slug == config_type.get_block_type_slug()


def test_a_subclass_may_name_its_block_type() -> None:
    """A slug that a class gives itself stays, and is not handed on to its subclasses."""

    class NamedKindConfig(ModelConfig):
        _block_type_name = "Rain"
        _block_type_slug = "rain-of-old"

    class NamedKindChildConfig(NamedKindConfig):
        pass

    assert ("Rain", "rain-of-old") == (NamedKindConfig.get_block_type_name(), NamedKindConfig.get_block_type_slug())
    assert "named-kind-child-config" == NamedKindChildConfig.get_block_type_slug()


async def test_saving_a_subclass_leaves_its_base_alone(server: str) -> None:
    """Three generations become three block types on the server; each document belongs to its own."""
    for config_type in (ModelConfig, PlainKindConfig, DeeperKindConfig):
        await config_type().asave("generation", overwrite=True)
    async with get_client() as client:
        documents = [
            await client.read_block_document_by_name("generation", config_type.get_block_type_slug())
            for config_type in (ModelConfig, PlainKindConfig, DeeperKindConfig)
        ]
    assert ["Model Config", "Plain Kind Config", "Deeper Kind Config"] == [d.block_type_name for d in documents]
    assert [False, False, True] == ["depth" in document.data for document in documents]


@pytest.mark.parametrize("config_type", KINDS, ids=lambda kind: kind.__name__)
async def test_values_survive_save_and_load(server: str, config_type: type[ModelConfig]) -> None:
    """What a user writes into a config of any kind is what a loaded one holds, undeclared values included."""
    given = KINDS[config_type] | {"colour": "blue", "levels": {"a": [1, None]}}
    config = config_type.model_validate(dict(given))
    await config.asave("kept", overwrite=True)

    loaded = await config_type.aload("kept")

    assert isinstance(loaded, config_type)
    assert config == loaded
    assert ("blue", {"a": [1, None]}) == (loaded.colour, loaded.levels)
    shown = given | ({"token": "**********"} if "token" in given else {})
    assert shown == {name: loaded.values()[name] for name in shown}


async def test_secret_survives_save_and_load_and_is_never_shown(server: str) -> None:
    """A secret is there for the model to read, and masked in the values."""
    await SecretKindConfig(token="s3cret").asave("hidden", overwrite=True)
    loaded = await SecretKindConfig.aload("hidden")
    assert "s3cret" == loaded.token.get_secret_value()
    assert "s3cret" not in repr(loaded.values())


def test_undeclared_values_are_attributes() -> None:
    """A value that the class does not declare can be read like a field; one that nobody gave cannot."""
    config = PlainKindConfig(colour="blue")
    assert "blue" == config.colour
    assert {"colour": "blue"} == config.additional_options
    with pytest.raises(AttributeError, match="color"):
        config.color  # noqa: B018  # the access is what is tested


def test_values_are_the_ones_the_user_writes() -> None:
    """Values come by alias, with undeclared ones beside the others and nothing of Prefect's."""
    expected = {
        "prediction_periods": 3,
        "additional_continuous_covariates": [],
        "n-lags": 5,
        "ridge-penalty": 1.0,
        "waves": 2,
        "random-seed": 0,
        "colour": "blue",
    }
    assert expected == AliasKindConfig.model_validate({"n-lags": 5, "colour": "blue"}).values()


@pytest.mark.parametrize("name", ["n-lags", "n_lags"])
def test_alias_and_field_name_are_both_accepted(name: str) -> None:
    """A field with an alias takes its value under either name."""
    config = AliasKindConfig.model_validate({name: 5})
    assert (5, {}) == (config.n_lags, config.additional_options)


@pytest.mark.parametrize("name", ["n-waves", "n_waves", "waves"])
def test_alternative_aliases_are_not_undeclared(name: str) -> None:
    """Each of a field's alternative names reaches the field."""
    config = AliasKindConfig.model_validate({name: 7})
    assert (7, {}) == (config.waves, config.additional_options)


def test_values_of_chap_core_are_fields() -> None:
    """What chap-core nests under user_option_values reaches declared and undeclared fields alike."""
    config = AliasKindConfig.model_validate({"prediction_periods": 4, "user_option_values": {"n-lags": 9, "x": 1}})
    assert (4, 9, {"x": 1}) == (config.prediction_periods, config.n_lags, config.additional_options)


def test_declared_user_option_values_are_left_alone() -> None:
    """A class that declares a field of that name gets it whole."""

    class OptionsKindConfig(ModelConfig):
        user_option_values: dict[str, int] = {}

    assert {"x": 1} == OptionsKindConfig.model_validate({"user_option_values": {"x": 1}}).user_option_values


def test_assignment_is_checked() -> None:
    """A field that is set later is validated too."""
    config = PlainKindConfig()
    config.n_lags = 4
    assert 4 == config.n_lags
    with pytest.raises(ValidationError, match="n_lags"):
        config.n_lags = "many"


def test_configs_share_no_defaults() -> None:
    """A list or mapping that one config changes stays as it was in the next."""
    PlainKindConfig().additional_continuous_covariates.append("rain")
    PlainKindConfig().additional_options["x"] = 1
    assert ([], {}) == (PlainKindConfig().additional_continuous_covariates, PlainKindConfig().additional_options)
