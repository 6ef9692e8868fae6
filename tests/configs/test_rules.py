"""Rules of configs: in code, in documents, and what is refused when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from config_kinds import AliasKindConfig, PlainKindConfig
from pydantic import SecretStr

from chapkit_flows import ModelConfig, rule
from chapkit_flows.configs.documents import build_configs, check_configs, read_documents
from chapkit_flows.configs.rules import check_rules, read_rules
from chapkit_flows.configs.versions import config_version, restore_config, with_horizon
from chapkit_flows.errors import ConfigError, InvalidBlockDocument, InvalidConfig

FEW = {"code": "too_many_lags", "check": "n_lags <= 12", "message": "n_lags is {n_lags}; use 12 or fewer."}


class RuledConfig(ModelConfig):
    """A config with rules in its code."""

    n_lags: int = 3
    token: SecretStr = SecretStr("")

    @rule("too_many_lags", "n_lags is {n_lags}; use 12 or fewer.", field="n_lags")
    def has_few_lags(self) -> bool:
        return self.n_lags <= 12

    @rule("long_horizon", "Far.", severity="warning", when=lambda config: config.n_lags > 1)
    def looks_back_as_far_as_ahead(self) -> bool | str:
        return self.prediction_periods <= self.n_lags or f"{self.prediction_periods} is further than it looks back."


class StricterConfig(RuledConfig):
    """A config that replaces an inherited rule."""

    @rule("too_many_lags", "Use 2 or fewer.", field="n_lags")
    def has_few_lags(self) -> bool:
        return self.n_lags <= 2


def ruled(*rules: dict[str, Any], **values: Any) -> PlainKindConfig:
    return PlainKindConfig(validation_rules=list(rules), **values)


def found(config: ModelConfig) -> list[tuple[str, str, str | None]]:
    return [(one.severity, one.code, one.field) for one in check_rules(config)]


def trouble(one: dict[str, Any], **values: Any) -> str:
    (only,) = read_rules(ruled(one, **values))[1]
    return only.text


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RuledConfig(), []),
        (RuledConfig(n_lags=13, prediction_periods=1), [("error", "too_many_lags", "config.n_lags")]),
        (RuledConfig(prediction_periods=4), [("warning", "long_horizon", None)]),
        (RuledConfig(n_lags=1, prediction_periods=4), []),
        (StricterConfig(), [("error", "too_many_lags", "config.n_lags")]),
    ],
)
def test_rules_in_code(config: ModelConfig, expected: list[Any]) -> None:
    """A method with a rule says what is wrong, if its condition applies; a subclass may replace it."""
    assert expected == found(config)


def test_messages_of_code() -> None:
    """The message names values, or is what the method returned."""
    messages = [one.message for one in check_rules(RuledConfig(n_lags=13, prediction_periods=20))]
    assert ["n_lags is 13; use 12 or fewer.", "20 is further than it looks back."] == messages


@pytest.mark.parametrize(
    ("one", "values", "expected"),
    [
        (FEW, {"n_lags": 12}, []),
        (FEW, {"n_lags": 13}, [("error", "too_many_lags", None)]),
        (FEW | {"severity": "info", "field": "n_lags"}, {"n_lags": 13}, [("info", "too_many_lags", "config.n_lags")]),
        (
            FEW | {"field": "n_lags", "check": "0 < value <= 12"},
            {"n_lags": 0},
            [("error", "too_many_lags", "config.n_lags")],
        ),
        (FEW | {"when": 'colour == "blue"'}, {"n_lags": 13, "colour": "red"}, []),
        (FEW | {"when": 'colour == "blue"'}, {"n_lags": 13, "colour": "blue"}, [("error", "too_many_lags", None)]),
        (FEW | {"check": "n_lags <= prediction_periods * 2"}, {"n_lags": 7}, [("error", "too_many_lags", None)]),
        (FEW | {"check": 'weights["a"] + sum([1, 2]) < 4'}, {"weights": {"a": 1}}, [("error", "too_many_lags", None)]),
        (FEW | {"check": "colour"}, {"colour": True}, []),
        (FEW | {"check": False}, {}, [("error", "too_many_lags", None)]),
        (FEW | {"check": "colour"}, {"colour": "blue"}, [("error", "rule_failed", None)]),
        (FEW | {"check": "colour > 3"}, {"colour": "blue"}, [("error", "rule_failed", None)]),
        (FEW | {"check": 'weights["b"] > 0'}, {"weights": {}}, [("error", "rule_failed", None)]),
        (FEW | {"check": "n_lags ** n_lags > 0"}, {"n_lags": 10**6}, [("error", "rule_failed", None)]),
        (FEW | {"check": "colour * n_lags != 0"}, {"colour": "x"}, [("error", "rule_failed", None)]),
    ],
)
def test_rules_in_a_document(one: dict[str, Any], values: dict[str, Any], expected: list[Any]) -> None:
    """A rule of one field or across fields finds what is not true of the values; one that fails is a finding too."""
    assert expected == found(ruled(one, **values))


def test_names_of_fields() -> None:
    """A rule may name a field as in the code; its alias is no name in an expression, but one of a field."""
    one = FEW | {"field": "n-lags", "check": "n_lags == value and value < 4"}
    config = AliasKindConfig.model_validate({"n-lags": 5, "validation_rules": [one]})
    assert [("error", "too_many_lags", "config.n-lags")] == found(config)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"check": "n_lags << 2 > 1"}, "check: .*the operator '<<'.*Use and, or, not"),
        ({"check": "n_lags is None"}, "the operator 'is'"),
        ({"check": "n_lag <= 12"}, "check: .*the unknown field 'n_lag'. Known are .*n_lags"),
        ({"when": "n_lag <= 12"}, "when: .*the unknown field 'n_lag'"),
        ({"check": "n_lags + 1"}, "can be neither true nor false. Compare it"),
        ({"check": "n_lags <= 1 and len(colour)"}, "can be neither true nor false"),
        ({"check": "open('/etc/passwd') == 1"}, "unknown function 'open'. There are abs"),
        ({"check": "(lambda: 1)() == 1"}, "not allowed|unknown function"),
        ({"check": "colour.__class__ == 1"}, "with a dot"),
        ({"check": "[x for x in colour] == 1"}, "not allowed .ListComp"),
        ({"check": 'f"{n_lags}" == "1"'}, "not allowed .JoinedStr"),
        ({"check": "round(n_lags, ndigits=1) == 1"}, "a named argument"),
        ({"check": "n_lags = 3"}, "is no expression"),
        ({"check": ""}, "no expression"),
        ({"check": 3}, "no expression"),
        ({"check": "n_lags < " + "1" * 500}, "too long"),
        ({"check": "n_lags < " + "+".join("1" * 150)}, "too many parts"),
        ({"code": "Too many"}, "no code of a rule"),
        ({"severity": "fatal"}, "severity is 'fatal'. Write one of error, warning, info"),
        ({"field": "n_lag"}, "field is the unknown 'n_lag'"),
        ({"message": " "}, "Say what is wrong"),
        ({"message": "{n_lag}"}, "message names the unknown field 'n_lag'"),
        ({"colour": "blue"}, "unknown key 'colour'"),
    ],
)
def test_refused_when_read(change: dict[str, Any], expected: str) -> None:
    """What could not be evaluated, or would never be right, is refused with the rule and the remedy."""
    with pytest.raises(InvalidConfig, match=expected):
        raise InvalidConfig(trouble(FEW | change, colour="x"))
    assert "Rule 1" in trouble(FEW | change, colour="x")


@pytest.mark.parametrize("key", ["code", "check", "message"])
def test_part_that_is_missing(key: str) -> None:
    """A rule without code, check or message is refused."""
    assert f"missing key {key!r}" in trouble({name: value for name, value in FEW.items() if name != key})


def test_two_rules_with_one_code() -> None:
    """A code that a rule above, or one in the model's code, has already is refused."""
    assert ["rule above, rule 1" in one.text for one in read_rules(ruled(FEW, FEW))[1]] == [True]
    (only,) = read_rules(RuledConfig(validation_rules=[FEW]))[1]
    assert "in the model's code" in only.text
    with pytest.raises(InvalidConfig, match="the rules first and second have the code 'same'"):

        class TwiceConfig(ModelConfig):
            @rule("same", "x")
            def first(self) -> bool:
                return True

            @rule("same", "x")
            def second(self) -> bool:
                return True


def test_rule_in_code_about_an_unknown_field() -> None:
    """A rule in code that is about no field of its class is refused with the class."""
    with pytest.raises(InvalidConfig, match="LostConfig: the rule good is about the unknown field 'n_lag'"):

        class LostConfig(ModelConfig):
            n_lags: int = 3

            @rule("lost", "x", field="n_lag")
            def good(self) -> bool:
                return True


class FailingConfig(ModelConfig):
    """A config with rules whose code is wrong."""

    @rule("raises", "x")
    def raises(self) -> bool:
        raise ZeroDivisionError("s3cret")

    @rule("returns_nothing", "x")
    def returns_nothing(self) -> None:
        return None

    @rule("returns_number", "x", field="prediction_periods")
    def returns_number(self) -> int:
        return 1


def test_rules_in_code_that_fail() -> None:
    """A method that raises, or returns something else, is a finding that does not repeat what it said."""
    said = check_rules(FailingConfig())
    assert ["raises", "returns_nothing", "returns_number"] == [one.message.split()[2] for one in said]
    assert {("error", "rule_failed")} == {(one.severity, one.code) for one in said}
    assert "s3cret" not in str(said)


def test_secrets_are_masked_in_messages() -> None:
    """A rule sees a secret value, its message does not show it."""
    one = FEW | {"code": "short", "check": "len(token) > 8", "message": "{token} is too short."}
    (only,) = check_rules(RuledConfig(token="s3cret", validation_rules=[one]))
    assert "********** is too short." == only.message


def test_rules_are_content() -> None:
    """Rules make another version and come back with it; without any, the digest is that of the values."""
    assert config_version(PlainKindConfig()).digest == config_version(ruled()).digest
    version = config_version(ruled(FEW, n_lags=13))
    assert config_version(PlainKindConfig(n_lags=13)).digest != version.digest
    restored = restore_config(version, PlainKindConfig)
    assert [("error", "too_many_lags", None)] == found(with_horizon(restored, 9))


DOCUMENT = """\
block_type_slug: plain-kind-config
name: weekly
model: models.py:plain
fields:
  n_lags: 13
rules:
  - code: too_many_lags
    check: n_lags <= 12
    message: n_lags is {n_lags}; use 12 or fewer.
    field: n_lags
  - code: colours
    check: CHECK
    message: Choose another colour.
    severity: warning
"""


def build(folder: Path, text: str) -> list[Any]:
    file = folder / "weekly.yaml"
    file.write_text(text)
    return build_configs(read_documents(file), lambda _: PlainKindConfig)


def test_document_with_rules(tmp_path: Path) -> None:
    """Rules of a document are saved with the config, and what they find names file, line and document."""
    configs = build(tmp_path, DOCUMENT.replace("CHECK", "prediction_periods > 1"))
    assert ["too_many_lags", "colours"] == [one["code"] for one in configs[0][1].validation_rules]
    (only,) = check_configs(configs)
    assert ("error", "too_many_lags", "config.n_lags") == (only.severity, only.code, only.field)
    expected = f"{tmp_path}/weekly.yaml:1: plain-kind-config/weekly: n_lags is 13; use 12 or fewer."
    assert expected == only.message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("CHECK", "colour == 1"), r"weekly.yaml:12: Rule 2 \(colours\): check: .*unknown field 'colour'"),
        (("CHECK", "n_lags <> 1"), r"weekly.yaml:12: Rule 2 \(colours\): check: .*is no expression"),
        (("code: colours", "code: too_many_lags"), r"weekly.yaml:11: Rule 2: the code 'too_many_lags'"),
        (("severity: warning", "severity: bad"), r"weekly.yaml:14: Rule 2 .*severity is 'bad'"),
        (("severity: warning", "level: bad"), r"weekly.yaml:14: Rule 2 .*unknown key 'level'"),
        (("rules:\n", "rules: many\nother:\n"), "unknown key 'other'"),
        (("fields:\n", "fields:\n  validation_rules: []\n"), "weekly.yaml:7: rules stand here and in fields"),
    ],
)
def test_document_with_rules_that_are_wrong(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    """A rule that cannot be used is refused before anything is applied, with file, line and rule."""
    text = DOCUMENT.replace(*change).replace("CHECK", "n_lags > 1")
    with pytest.raises(ConfigError, match=expected):
        build(tmp_path, text)


def test_rules_that_are_no_list(tmp_path: Path) -> None:
    """Rules are a list of mappings."""
    with pytest.raises(InvalidBlockDocument, match=r"weekly.yaml:6: rules must be a list of mappings"):
        build(tmp_path, DOCUMENT[: DOCUMENT.index("  - code")].replace("rules:", "rules: {a: 1}"))


async def test_rules_survive_the_server(server: str) -> None:
    """Rules are saved and loaded with the block."""
    await ruled(FEW, n_lags=13).asave("ruled", overwrite=True)
    assert [("error", "too_many_lags", None)] == found(await PlainKindConfig.aload("ruled"))
