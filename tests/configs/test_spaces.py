"""What a sweep may try: values and ranges that fit the fields of a config."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, SecretStr, model_validator

from chapkit_flows import ModelConfig
from chapkit_flows.configs.spaces import Range, differing, is_range, read_space
from chapkit_flows.errors import InvalidConfig, InvalidSweep


class SpacedConfig(ModelConfig):
    """Fields of all kinds."""

    n_lags: int = Field(default=3, ge=1, le=12)
    alpha: float = Field(default=1.0, gt=0)
    kind: str = "ridge"
    dry: bool = False
    low: int = 1
    high: int = 5
    token: SecretStr = SecretStr("s3cret")
    waves: int = Field(default=2, alias="numberOfWaves")

    @model_validator(mode="after")
    def _in_order(self) -> SpacedConfig:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def test_grid_is_every_combination() -> None:
    """Values take the types of their fields, equal ones count once, and the last field changes fastest."""
    space = read_space(SpacedConfig(), {"n_lags": ["1", 2, 1], "kind": ["a", "b"]})
    assert [(1, "a"), (1, "b"), (2, "a"), (2, "b")] == [tuple(values.values()) for values in space.grid()]
    assert 4 == space.size
    config = space.config({"n_lags": 2, "kind": "b"})
    assert (2, "b", 1.0, "s3cret") == (config.n_lags, config.kind, config.alpha, config.token.get_secret_value())


def test_base_gives_the_rest() -> None:
    """What is not swept is that of the base, with its options, and with the name that its secrets are found by."""
    base = SpacedConfig.model_validate({"n_lags": 7, "extra": "x"})
    base._block_document_name = "weekly"
    space = read_space(base, {"extra": ["y", [1, 2]], "numberOfWaves": [1]})
    (first, second) = (space.config(values) for values in space.grid())
    assert ("y", [1, 2], 7, 1) == (first.extra, second.extra, first.n_lags, first.waves)
    assert "weekly" == first._block_document_name


def test_a_field_is_named_by_its_name_too() -> None:
    """A field with an alias is swept under either name, and found in the values under its alias."""
    (values,) = read_space(SpacedConfig(), {"waves": [5]}).grid()
    assert {"numberOfWaves": 5} == values


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("n_lags", "1:12", Range(low=1, high=12)),
        ("alpha", "0.1:10:log", Range(low=0.1, high=10.0, is_log=True)),
        ("alpha", "1:2", Range(low=1.0, high=2.0)),
        ("n_lags", "1:8:log", Range(low=1, high=8, is_log=True)),
    ],
)
def test_ranges(field: str, text: str, expected: Range) -> None:
    """A range has the type of its field."""
    found = read_space(SpacedConfig(), {field: text}).ranges[field]
    assert expected == found
    assert type(expected.low) is type(found.low)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"nlags": [1]}, "nlags is not a field of SpacedConfig; did you mean n_lags?"),
        ({"zzz": [1]}, "zzz is not a field of SpacedConfig. It has "),
        ({"n_lags": []}, "n_lags has no values"),
        ({"n_lags": "1-3"}, "1-3 is neither a list nor a range"),
        ({"alpha": "3:1"}, "the range 3:1 is empty"),
        ({"low": "0:4:log"}, "begins above 0, not at 0"),
        ({"dry": "0:1"}, "takes no numbers"),
        ({"token": ["a", "b"]}, "is a secret of SpacedConfig"),
        ({"prediction_periods": [1, 2]}, "cannot be swept"),
        ({"waves": [1], "numberOfWaves": [2]}, "given twice"),
        ({"x" * 300: [1]}, "x… is not a field"),
    ],
)
def test_refused_fields(given: dict[str, Any], words: str) -> None:
    """What cannot be swept is refused with its name."""
    with pytest.raises(InvalidSweep) as refusal:
        read_space(SpacedConfig(), given)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_lags": [1, "two"]}, "n_lags = two does not fit SpacedConfig: Input should be a valid integer"),
        ({"n_lags": [0]}, "greater than or equal to 1"),
        ({"n_lags": "1:40"}, "n_lags = 40 does not fit"),
        ({"n_lags": "0.5:4"}, "n_lags = 0.5 does not fit"),
        ({"kind": "1:3"}, "kind = 1 does not fit SpacedConfig: Input should be a valid string"),
        ({"numberOfWaves": ["x"]}, "numberOfWaves = x does not fit"),
    ],
)
def test_values_that_do_not_fit(given: dict[str, Any], words: str) -> None:
    """A value of another type, or out of the bounds of its field, is refused with the name of the field."""
    with pytest.raises(InvalidConfig) as refusal:
        read_space(SpacedConfig(), given)
    assert words in str(refusal.value)


def test_values_that_fit_only_together() -> None:
    """A value that the base does not go with is taken; combinations that do not fit are told one by one."""
    space = read_space(SpacedConfig(), {"low": [1, 7], "high": [5, 9]})
    fitting = [values for values in space.grid() if values != {"low": 7, "high": 5}]
    assert [1, 1, 7] == [space.config(values).low for values in fitting]
    with pytest.raises(InvalidConfig, match=r"low = 7, high = 5: .*low is above high"):
        space.config({"low": 7, "high": 5})


def test_what_is_a_range() -> None:
    """Only two numbers with a colon between are a range."""
    assert all(map(is_range, ["1:2", "0.1:10:log", "-1:1", "1e-4:1e-1:log", ".5:2."]))
    assert not any(map(is_range, ["1", "1,2", "a:b", "1:2:3", "12:30:00", "", "1:"]))


def test_differing_values() -> None:
    """Values are named that are not the same in all contents, also where one has none."""
    contents = [{"a": 1, "b": [1], "c": 0}, {"a": 1, "b": [2], "c": 0, "d": None}, {"a": True, "b": [1], "c": 0}]
    assert ["a", "b"] == differing(contents)
    assert [] == differing([])
