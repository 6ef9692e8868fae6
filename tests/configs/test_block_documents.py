"""YAML documents: what is read, what is refused, what reaches the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest
from config_kinds import AliasKindConfig, PlainKindConfig, RequiredKindConfig, SecretKindConfig
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate

from chapkit_flows import ModelConfig
from chapkit_flows.configs.documents import Application, apply_documents, load_config, read_documents, saved_names
from chapkit_flows.errors import ChapkitFlowsError, ConfigNotFound, InvalidBlockDocument, InvalidConfig

TYPES: dict[str, type[ModelConfig]] = {
    "plain": PlainKindConfig,
    "alias": AliasKindConfig,
    "secret": SecretKindConfig,
    "required": RequiredKindConfig,
}
GOOD = "block_type_slug: plain-kind-config\nname: {name}\nmodel: plain\nfields:\n  n_lags: {n_lags}\n"

Apply = Callable[[], Awaitable[Application]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    blocks = tmp_path / "blocks"
    blocks.mkdir()
    return blocks


@pytest.fixture
def apply(server: str, folder: Path) -> Apply:
    async def apply() -> Application:
        return await apply_documents(read_documents(folder), TYPES.__getitem__)

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

    assert ["created", "created", "created"] == [item.change for item in (await apply()).documents]
    first = [await updated(*name) for name in names]

    assert ["unchanged", "unchanged", "unchanged"] == [item.change for item in (await apply()).documents]
    assert first == [await updated(*name) for name in names]

    (folder / "a.yaml").write_text(GOOD.format(name="one", n_lags=9) + "---\n" + GOOD.format(name="two", n_lags=2))
    assert ["updated", "unchanged", "unchanged"] == [item.change for item in (await apply()).documents]
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
        applied = await apply_documents(read_documents(folder), lambda _, found=config_type: found)
        changes.append([(item.slug, item.change) for item in applied.types])
    expected = ["registered", "unchanged", "updated", "updated"]
    assert [[("growing-kind-config", change)] for change in expected] == changes


async def test_changed_secret_is_updated(apply: Apply, folder: Path) -> None:
    """Secrets are compared too, though they are never shown."""
    document = "block_type_slug: secret-kind-config\nname: held\nmodel: secret\nfields: {{token: {token}}}\n"
    changes = []
    for token in ("a", "a", "b"):
        (folder / "s.yaml").write_text(document.format(token=token))
        changes += [item.change for item in (await apply()).documents]
    assert ["created", "unchanged", "updated"] == changes
    assert "b" == (await load_config(SecretKindConfig, "held")).token.get_secret_value()


async def test_document_without_fields_has_the_defaults(apply: Apply, folder: Path) -> None:
    """A document needs no fields when all of them have defaults."""
    (folder / "d.yaml").write_text("block_type_slug: plain-kind-config\nname: defaults\nmodel: plain\n")
    assert ["created"] == [item.change for item in (await apply()).documents]
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
    assert ["updated"] == [item.change for item in (await apply()).documents]
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
    "tabs": (b"fields:\n\tn_lags: 3\n", "not readable YAML"),
    "python tag": (b"name: !!python/object/apply:os.system ['true']\n", "not readable YAML"),
    "own tag": (b"name: !secret a\n", "not readable YAML"),
    "no such day": (b"fields: {start: 2024-02-30}\n", "not readable YAML: day is out of range"),
    "no digits": (b"fields: {x: 0b_}\n", "not readable YAML: invalid literal"),
    "no truth value": (b"fields: {x: !!bool maybe}\n", "not readable YAML: 'maybe'"),
    "bytes": (b"fields: {x: !!binary /w==}\n", "'x' is bytes, which cannot be stored"),
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
        "fields: the key 1 is not text",
    ),
    "key of Prefect": (
        b"block_type_slug: a\nname: b\nmodel: c\nfields: {block_type_slug: foo}\n",
        "fields: the key 'block_type_slug' belongs to Prefect",
    ),
    "not UTF-8": ("name: é\n".encode("latin-1"), "not readable YAML"),
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
        "block_type_slug: a\nname: one\nmodel: ../model.py:rain\n---\nblock_type_slug: a\nname: two\nmodel: rain\n"
    )
    expected = [str(folder.resolve() / "../model.py:rain"), "rain"]
    assert expected == [document.model for document in read_documents(folder)]


BAD_CONTENTS = {
    "wrong type": ("block_type_slug: alias-kind-config\nname: bad\nmodel: plain\n", "is of type 'plain-kind-config'"),
    "wrong value": (GOOD.format(name="bad", n_lags="many"), "n_lags: Input should be a valid integer"),
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
