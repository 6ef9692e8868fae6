"""References to secrets that are kept elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.types import SecretDict
from prefect.utilities.templating import find_placeholders
from pydantic import BaseModel, SecretStr

from chapkit_flows import ModelConfig
from chapkit_flows.configs.references import find_trouble, read_reference
from chapkit_flows.configs.secrets import reveal
from chapkit_flows.configs.versions import config_version, restore_config


class Door(BaseModel):
    """A secret within the settings."""

    key: SecretStr = SecretStr("")


class ReferringConfig(ModelConfig):
    """Secrets in every form."""

    token: SecretStr = SecretStr("")
    options: SecretDict = SecretDict({})
    spare: list[SecretStr] = []
    doors: dict[str, SecretStr] = {}
    front: Door = Door()
    note: str | None = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${env:A_1}", ("env", "A_1")),
        ("${file:/run/secrets/a b}", ("file", "/run/secrets/a b")),
        ("${secret-block:db}", ("secret-block", "db")),
        ("${secret-block:db/pass/word}", ("secret-block", "db/pass/word")),
        ("${env:1A}", None),
        ("${env:}", None),
        ("${file:relative}", None),
        ("${secret-block:Db}", None),
        ("${vault:a}", None),
        ("x${env:A}", None),
        ("${env:A}\n", None),
        ("${A}", None),
        (3, None),
    ],
)
def test_reads_references(text: object, expected: tuple[str, str] | None) -> None:
    """A reference is a whole text of a known kind."""
    found = read_reference(text)
    assert expected == (None if found is None else (found.kind, found.target))
    if found is not None:
        assert text == str(found)


async def test_resolves_wherever_a_secret_may_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """References are found in fields, mappings, lists and nested settings; other secrets and the original stay."""
    monkeypatch.setenv("REFERRING", "from-environment")
    (tmp_path / "key").write_text("line one\nline two\n")
    reference, file = "${env:REFERRING}", f"${{file:{tmp_path}/key}}"
    config = ReferringConfig(
        token=reference,
        options={"user": "ana", "nested": {"password": reference, "port": 5}},
        spare=["plain", file],
        doors={"north": file},
        front={"key": reference},
    )
    found = await reveal(config)
    assert () == found.findings
    text = "line one\nline two"
    expected = {
        "token": "from-environment",
        "options": {"user": "ana", "nested": {"password": "from-environment", "port": 5}},
        "spare": ["plain", text],
        "doors": {"north": text},
        "front": {"key": "from-environment"},
    }
    assert expected == {key: found.config.values(reveal=True)[key] for key in expected}
    assert reference == config.token.get_secret_value()
    shown = config.values()
    assert {"user": "**********", "nested": {"password": reference, "port": "**********"}} == shown["options"]
    assert (["**********", file], {"key": reference}) == (shown["spare"], shown["front"])
    assert "from-environment" not in str(found.config.values()) + repr(found.config)


async def test_config_without_references_is_the_same() -> None:
    """Nothing is copied where nothing is to be resolved."""
    config = ReferringConfig(token="literal", options={"a": "b"})
    assert config is (await reveal(config)).config


def test_masked_version_is_restored() -> None:
    """What lineage keeps of a config with secrets of every form is accepted by its class."""
    config = ReferringConfig(token="t", options={"a": "b"}, spare=["s"], doors={"d": "x"}, front={"key": "k"})
    assert config.values() == restore_config(config_version(config), ReferringConfig).values()
    assert {} == ReferringConfig().values()["options"]


@pytest.mark.parametrize(
    ("values", "path", "said"),
    [
        ({"note": "${env:A}"}, ("note",), "but this is no secret field"),
        ({"colour": ["${file:/a}"]}, ("colour", "0"), "but this is no secret field"),
        ({"token": "${vault:a}"}, ("token",), "that is no reference"),
        ({"token": "canary ${env:A}"}, ("token",), "that is no reference"),
    ],
)
def test_misplaced_reference_is_found(values: dict[str, object], path: tuple[str, ...], said: str) -> None:
    """A reference in a plain field, or only a part of a secret, is told of; a secret text is not repeated."""
    (found,) = find_trouble(ReferringConfig(**values))
    assert (path, True, False) == (found.path, said in found.text, "canary" in found.text)


@pytest.mark.parametrize("text", ["${env:A}", "${file:/a}", "${secret-block:a/b}"])
def test_prefect_templates_leave_references_alone(text: str) -> None:
    """What `prefect deploy` looks for to put values in its place is not found in a reference."""
    assert set() == find_placeholders(text)
    assert {"{{ $A }}"} == {found.full_match for found in find_placeholders(f"{text} {{{{ $A }}}}")}
