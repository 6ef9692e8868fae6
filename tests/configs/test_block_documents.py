"""YAML documents: what is read, what is refused, what reaches the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
from config_kinds import AliasKindConfig, PlainKindConfig, RequiredKindConfig, SecretKindConfig
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from chapkit_flows import ModelConfig, load_model
from chapkit_flows.configs.documents import build_configs, load_config, read_documents, saved_names
from chapkit_flows.configs.plan import Plan, Written, carry_out, make_plan
from chapkit_flows.errors import ChapkitFlowsError, ConfigNotFound, InvalidBlockDocument, InvalidConfig

TYPES: dict[str, type[ModelConfig]] = {
    "plain": PlainKindConfig,
    "alias": AliasKindConfig,
    "secret": SecretKindConfig,
    "required": RequiredKindConfig,
}
GOOD = "block_type_slug: plain-kind-config\nname: {name}\nmodel: plain\nfields:\n  n_lags: {n_lags}\n"

Apply = Callable[[], Awaitable["Done"]]


@dataclass(frozen=True)
class Done:
    """A plan that was carried out."""

    plan: Plan
    written: list[Written]

    @property
    def documents(self) -> list[str]:
        """What became of each document."""
        done = {one.slug: one.change for one in self.written if one.document is not None}
        return [done.get(item.slug, item.action) for item in self.plan.documents if item.document]


async def apply_all(folder: Path, config_type_of: Callable[[str], type[ModelConfig]]) -> Done:
    """Plan and apply without a history."""
    plan = await make_plan(build_configs(read_documents(folder), config_type_of), lambda *_: None)
    return Done(plan, [one async for one in carry_out(plan)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blocks = tmp_path / "blocks"
    blocks.mkdir()
    return blocks


@pytest.fixture
def apply(server: str, folder: Path) -> Apply:
    async def apply() -> Done:
        return await apply_all(folder, lambda model: TYPES[model] if model in TYPES else load_model(model).config)

    return apply


async def updated(slug: str, name: str) -> tuple[datetime | None, ...]:
    """When the document, its schema and its type last changed on the server."""
    async with get_client() as client:
        document = await client.read_block_document_by_name(name, slug)
        kind = await client.read_block_type_by_slug(slug)
    assert document.block_schema is not None
    return document.updated, document.block_schema.updated, kind.updated


async def test_apply_creates_then_changes_nothing_then_updates(apply: Apply, folder: Path) -> None:
    """The first apply creates, the second writes nothing, and a changed value is updated alone."""
    (folder / "a.yaml").write_text(GOOD.format(name="one", n_lags=1) + "---\n" + GOOD.format(name="two", n_lags=2))
    (folder / "sub").mkdir()
    (folder / "sub/b.yml").write_text(
        "block_type_slug: alias-kind-config\nname: three\nmodel: alias\nfields: {n-lags: 4, colour: blue}\n"
    )
    names = [("plain-kind-config", "one"), ("plain-kind-config", "two"), ("alias-kind-config", "three")]

    assert ["created", "created", "created"] == (await apply()).documents
    first = [await updated(*name) for name in names]

    assert ["unchanged", "unchanged", "unchanged"] == (await apply()).documents
    assert first == [await updated(*name) for name in names]

    (folder / "a.yaml").write_text(GOOD.format(name="one", n_lags=9) + "---\n" + GOOD.format(name="two", n_lags=2))
    assert ["updated", "unchanged", "unchanged"] == (await apply()).documents
    later = [await updated(*name) for name in names]
    assert [False, True, True] == [before == after for before, after in zip(first, later, strict=True)]
    assert 9 == (await load_config(PlainKindConfig, "one")).n_lags
    third = await load_config(AliasKindConfig, "three")
    assert (4, "blue") == (third.n_lags, third.colour)


def _grown(description: str, **fields: type) -> type[ModelConfig]:
    """A config class of one block type, as it was or as it became."""
    body = {"__doc__": description, "__annotations__": fields, **dict.fromkeys(fields, 1)}
    return type("GrowingKindConfig", (ModelConfig,), body | {"__module__": __name__})


async def test_block_type_is_registered_then_updated(server: str, folder: Path) -> None:
    """What happens to the block type is told apart from what happens to the document."""
    (folder / "a.yaml").write_text("block_type_slug: growing-kind-config\nname: same\nmodel: growing\n")
    classes = [_grown("First."), _grown("First."), _grown("Second."), _grown("Second.", depth=int)]
    changes = []
    for config_type in classes:
        done = await apply_all(folder, lambda _, found=config_type: found)
        changes.append([(item.slug, item.action) for item in done.plan.types])
    expected = ["register", "unchanged", "update", "update"]
    assert [[("growing-kind-config", change)] for change in expected] == changes


async def test_changed_secret_is_updated(apply: Apply, folder: Path) -> None:
    """Secrets are compared too, though they are never shown."""
    document = "block_type_slug: secret-kind-config\nname: held\nmodel: secret\nfields: {{token: {token}}}\n"
    changes = []
    for token in ("a", "a", "b"):
        (folder / "s.yaml").write_text(document.format(token=token))
        changes += (await apply()).documents
    assert ["created", "unchanged", "updated"] == changes
    assert "b" == (await load_config(SecretKindConfig, "held")).token.get_secret_value()


async def test_document_without_fields_has_the_defaults(apply: Apply, folder: Path) -> None:
    """A document needs no fields when all of them have defaults."""
    (folder / "d.yaml").write_text("block_type_slug: plain-kind-config\nname: defaults\nmodel: plain\n")
    assert ["created"] == (await apply()).documents
    assert PlainKindConfig().values() == (await load_config(PlainKindConfig, "defaults")).values()


async def test_saved_config_that_no_longer_fits_is_replaced(apply: Apply, folder: Path) -> None:
    """A config saved before its class required a field cannot be loaded, and can be applied again."""
    document = await RequiredKindConfig(region="south").asave("grown", overwrite=True)
    async with get_client() as client:
        await client.update_block_document(document, BlockDocumentUpdate(data={}, merge_existing_data=False))
    with pytest.raises(InvalidConfig, match=r"'grown' does not fit RequiredKindConfig: region: Field required"):
        await load_config(RequiredKindConfig, "grown")
    (folder / "r.yaml").write_text(
        "block_type_slug: required-kind-config\nname: grown\nmodel: required\nfields: {region: north}\n"
    )
    assert ["updated"] == (await apply()).documents
    assert "north" == (await load_config(RequiredKindConfig, "grown")).region


BAD_FILES = {
    "unknown key": (b"block_type_slug: a\nname: b\nmodel: c\nfield: {}\n", "unknown key 'field'"),
    "missing keys": (b"fields: {}\n", "missing key 'block_type_slug', missing key 'model', missing key 'name'"),
    "not a mapping": (b"- 1\n- 2\n", "a document must be a mapping"),
    "fields are a list": (b"block_type_slug: a\nname: b\nmodel: c\nfields: [1]\n", "fields must be a mapping"),
    "fields are an empty list": (b"block_type_slug: a\nname: b\nmodel: c\nfields: []\n", "fields must be a mapping"),
    "name is empty": (b"block_type_slug: a\nname:\nmodel: c\n", "name must be text, not None"),
    "name is a mapping": (b"block_type_slug: a\nname: {x: 1}\nmodel: c\n", "name must be text, not {'x': 1}"),
    "not YAML": (b"name: [a, b\n", "not readable YAML"),
    "tabs": (b"fields:\n\tn_lags: 3\n", "2: not readable YAML: the line starts with a tab. Indent with spaces"),
    "python tag": (b"\nname: !!python/object/apply:os.system ['true']\n", "2: not readable YAML: 'name' has the tag"),
    "own tag": (b"name: !secret a\n", "1: not readable YAML: 'name' has the tag !secret, and tags are not read"),
    "set": (b"name: a\nfields: !!set {a, b}\n", "2: not readable YAML: 'fields' has the tag !!set"),
    "key twice": (b"name: a\nmodel: b\nname: c\n", "3: the key 'name' stands twice, first in line 1. Remove one"),
    "key twice further in": (b"fields:\n  x: {a: 1,\n      a: 2}\n", "3: the key 'a' stands twice, first in line 2"),
    "merged billions": (
        b"a: &a {x: 1}\n"
        + b"".join(b"%c: &%c {<<: [%s]}\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 10)) for n in b"bcdefgh"),
        "'<<' has more than 100000 values",
    ),
    "too deep": (b"[" * 5000, "not readable YAML: it is nested too deeply"),
    "control character": (b"name: a\nmodel: \x01\n", "2: not readable YAML: it holds the character U+0001"),
    "key that is a list": (b"? [a]\n: b\n", "1: not readable YAML: a key must be text"),
    "no such day": (b"fields: {start: 2024-02-30}\n", "not readable YAML: day is out of range"),
    "no digits": (b"fields: {x: 0b_}\n", "not readable YAML: invalid literal"),
    "no truth value": (b"fields: {x: !!bool maybe}\n", "not readable YAML: 'maybe'"),
    "bytes": (b"fields: {x: !!binary /w==}\n", "'x' has the tag !!binary, and tags are not read"),
    "not finite": (b"fields: {x: .nan}\n", "'x' is nan, which cannot be stored"),
    "half a character": (b'fields: {x: "\\ud83d"}\n', "'x' holds half a character: '\\ud83d'"),
    "circle": (b"fields: {x: &a [*a]}\n", "'x' contains itself by an anchor"),
    "billions": (
        b"a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 10)) for n in b"bcdefgh"),
        "has more than 100000 values",
    ),
    "key that is a number": (
        b"block_type_slug: a\nname: b\nmodel: c\nfields: {1: 2}\n",
        "4: fields: the key 1 is not text",
    ),
    "key of Prefect": (
        b"block_type_slug: a\nname: b\nmodel: c\nfields: {block_type_slug: foo}\n",
        "fields: the key 'block_type_slug' belongs to Prefect",
    ),
    "not UTF-8": ("a: b\nname: é\n".encode("latin-1"), "2: not readable YAML: byte 0xe9 is not UTF-8. Save the file"),
    "no documents": (b"# nothing yet\n---\n", "holds no block documents"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=list(BAD_FILES))
def test_bad_file_is_refused_by_name(folder: Path, content: bytes, message: str) -> None:
    """A file that holds no usable document is refused; the message names the file and what is wrong."""
    file = folder / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidBlockDocument) as refused:
        read_documents(file)
    assert str(file) in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(("name", "message"), [("absent", "There is no file or folder"), ("", "holds no block docu")])
def test_path_without_documents_is_refused(folder: Path, name: str, message: str) -> None:
    """A path that is not there and a folder without documents are named."""
    with pytest.raises(InvalidBlockDocument, match=message) as refused:
        read_documents(folder / name)
    assert str(folder / name) in str(refused.value)


def test_two_documents_of_one_name_are_refused(folder: Path) -> None:
    """The same type and name twice is an error that names both files."""
    for file in ("a.yaml", "b.yaml"):
        (folder / file).write_text(GOOD.format(name="same", n_lags=1))
    with pytest.raises(InvalidBlockDocument) as refused:
        read_documents(folder)
    for expected in ("plain-kind-config/same", str(folder / "a.yaml"), str(folder / "b.yaml")):
        assert expected in str(refused.value)


def test_model_is_found_beside_its_document(folder: Path) -> None:
    """A model's path is relative to the YAML file, not to the working directory; a name stays a name."""
    (folder / "a.yaml").write_text(
        "block_type_slug: a\nname: one\nmodel: ../model.py:rain\n---\n"
        "block_type_slug: a\nname: two\nmodel: my.py_models:rain\n"
    )
    expected = [str(folder.resolve() / "../model.py:rain"), "my.py_models:rain"]
    assert expected == [document.model for document in read_documents(folder)]


BAD_CONTENTS = {
    "wrong type": ("block_type_slug: alias-kind-config\nname: bad\nmodel: plain\n", "is of type 'plain-kind-config'"),
    "wrong value": (GOOD.format(name="bad", n_lags="many"), "b.yaml:5: n_lags: Input should be a valid integer"),
    "missing model": ("block_type_slug: a\nname: b\nmodel: gone.py:rain\n", "gone.py. Write the path of the model"),
    "reference elsewhere": (
        "block_type_slug: plain-kind-config\nname: bad\nmodel: plain\nfields:\n  x: [1, '${env:A}']\n",
        "b.yaml:5: x.1: ${env:A} is a reference to a secret, but this is no secret field. Declare it as SecretStr",
    ),
    "no such reference": (
        "block_type_slug: secret-kind-config\nname: bad\nmodel: secret\nfields: {token: '${vault:A}'}\n",
        "token: that is no reference. As the whole value write one of ${env:NAME}",
    ),
    "missing value": ("block_type_slug: required-kind-config\nname: bad\nmodel: required\n", "region: Field required"),
    "capitals in the name": (GOOD.format(name="Bad", n_lags=1), "the name 'Bad' is not usable"),
    "spaces in the name": (GOOD.format(name="bad name", n_lags=1), "the name 'bad name' is not usable"),
    "name that does not fit a URL": (GOOD.format(name="a/b", n_lags=1), "the name 'a/b' is not usable"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CONTENTS.values(), ids=list(BAD_CONTENTS))
async def test_one_bad_document_stops_all(apply: Apply, folder: Path, content: str, message: str) -> None:
    """When one of several documents is wrong, its file is named and none of them is written."""
    (folder / "a.yaml").write_text(GOOD.format(name="not-written", n_lags=1))
    (folder / "b.yaml").write_text(content)
    with pytest.raises(ChapkitFlowsError) as refused:
        await apply()
    assert str(folder / "b.yaml") in str(refused.value)
    assert message in str(refused.value)
    assert "not-written" not in await saved_names(PlainKindConfig)


async def test_unknown_config_lists_the_saved_ones(server: str) -> None:
    """Asking for a config that is not there says which ones are, of that type only."""

    class ListedKindConfig(ModelConfig):
        pass

    with pytest.raises(ConfigNotFound, match=r"'absent' of type listed-kind-config \(saved: none\)"):
        await load_config(ListedKindConfig, "absent")
    for name in ("b", "a"):
        await ListedKindConfig().asave(name)
    await PlainKindConfig().asave("elsewhere", overwrite=True)
    with pytest.raises(ConfigNotFound, match=r"\(saved: a, b\)\. .*blocks apply"):
        await load_config(ListedKindConfig, "absent")
