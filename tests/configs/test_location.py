"""The block that says where artifacts are kept: saved, found, changed, and silent about its secrets."""

from __future__ import annotations

import asyncio
import sys
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError
from server_api import connect

from chapkit_flows import ArtifactLocation, ChapkitFlowsSettings, open_resources, resources
from chapkit_flows.artifacts.store import open_store
from chapkit_flows.configs.location import load_location
from chapkit_flows.errors import ChapkitFlowsError, ConfigNotFound, ServerUnavailable, StoreUnavailable

CANARY = "canary-4f1d-do-not-show"


@pytest.fixture
def name(server: str, home: Path) -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


def setting(name: str) -> ChapkitFlowsSettings:
    return ChapkitFlowsSettings(storage_block=name)


@pytest.mark.parametrize("prefix", ["", "artifact-location/"])
def test_saved_location_is_the_store(name: str, prefix: str) -> None:
    """A store is opened where the saved block says, by its name or its slug, whatever storage_url says."""
    ArtifactLocation(url=f"memory://{name}").save(name)
    settings = ChapkitFlowsSettings(storage_block=prefix + name, storage_url="memory://elsewhere")
    assert f"memory://{name}" == open_resources(settings).store.url


@pytest.mark.parametrize("where", ["thread", "event loop", "async flow's thread"])
def test_location_is_found_from_anywhere(name: str, where: str) -> None:
    """The block is loaded in a worker thread, inside a running event loop, and in a thread of an event loop."""
    ArtifactLocation(url=f"memory://{name}").save(name)

    async def within(*, thread: bool) -> Any:
        return await asyncio.to_thread(open_resources, setting(name)) if thread else open_resources(setting(name))

    if where == "thread":
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(open_resources, setting(name)).result()
    else:
        found = asyncio.run(within(thread=where != "event loop"))
    assert f"memory://{name}" == found.store.url


def test_change_is_followed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is asked for once in a window of time; a change counts from the next one, for the store alone."""
    clock = [0.0]
    monkeypatch.setattr(resources.time, "monotonic", lambda: clock[0])
    ArtifactLocation(url=f"memory://{name}/old").save(name)
    first = open_resources(setting(name))
    ArtifactLocation(url=f"memory://{name}/new").save(name, overwrite=True)
    assert first is open_resources(setting(name))
    clock[0] += resources.LOCATION_SECONDS
    second = open_resources(setting(name))
    assert f"memory://{name}/new" == second.store.url
    assert first.database is second.database


def test_location_that_is_absent(name: str) -> None:
    """A name under which nothing is saved is an error with the name, the setting and the remedy."""
    with pytest.raises(ConfigNotFound, match=f"artifact-location/{name}.*storage_block.*Save one"):
        open_resources(setting(name))


def test_server_that_does_not_answer(home: Path) -> None:
    """Without the server that keeps the block the error names the block and the server."""
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(ServerUnavailable, match="storage block somewhere"),
    ):
        open_resources(setting("somewhere"))


def test_scheme_is_refused_before_a_connection(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A location whose scheme is not allowed is refused, and nobody looks for its host."""
    ArtifactLocation(url="ftp://host.invalid/x").save(name)
    block = setting(name)
    load_location(name)
    connections: list[Any] = []
    armed = [True]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if armed[0] and event in ("socket.connect", "socket.getaddrinfo") and "host.invalid" in repr(arguments):
            connections.append(arguments)

    sys.addaudithook(watch)
    try:
        with pytest.raises(StoreUnavailable, match="not allowed"):
            open_resources(block)
    finally:
        armed[0] = False
    assert [] == connections


@pytest.mark.parametrize(
    "url", [f"sftp://me:{CANARY}@host/x", f"s3://bucket/x?signature={CANARY}", f"sftp://me:a/{CANARY}@host/x"]
)
def test_password_in_the_url_is_refused(url: str) -> None:
    """A URL with a secret is refused without repeating it; secrets belong into the options."""
    with pytest.raises(ValidationError, match="Move it to the options") as caught:
        ArtifactLocation(url=url)
    assert CANARY not in str(caught.value)


def test_options_are_never_shown(server: str, name: str) -> None:
    """Neither the block's texts nor the server's answer, nor a value that does not fit, show an option."""
    block = ArtifactLocation(url=f"memory://{name}", options={"client": {"secret": CANARY}})
    block.save(name)
    with pytest.raises(ValidationError) as caught:
        ArtifactLocation(url="memory://x", options=CANARY)
    with connect(server) as api:
        answer = api.get(f"/block_types/slug/artifact-location/block_documents/name/{name}").text
    assert name in answer
    shown = [repr(block), str(block), block.model_dump_json(), answer, str(caught.value)]
    assert [] == [text for text in shown if CANARY in text]
    assert {"client": {"secret": CANARY}} == load_location(name).options.get_secret_value()


def test_block_is_found_by_its_slug(name: str) -> None:
    """Prefect loads a saved location as this class when only its slug is known, as a reference in a run does."""
    ArtifactLocation(url="memory://x").save(name)
    assert isinstance(Block.load(f"artifact-location/{name}"), ArtifactLocation)


@pytest.mark.parametrize("field", ["url", "options"])
def test_form_is_described(field: str) -> None:
    """The block says what it is for, and each field what it takes, in sentences."""
    assert ArtifactLocation.get_description().endswith(".")
    assert str(ArtifactLocation.model_fields[field].description).endswith(".")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/x", {"client_kwargs": {"nonsense": CANARY}}),
        ("s3://bucket/x", {"config_kwargs": {"nonsense": CANARY}}),
        ("sftp://127.0.0.1:9/x", {"nonsense": CANARY}),
    ],
)
def test_options_that_do_not_fit(url: str, options: dict[str, Any]) -> None:
    """An option that the driver does not know is an error that names the store and the option, not its value."""
    pytest.importorskip({"s3": "s3fs", "sftp": "sshfs"}[url.partition(":")[0]])
    with pytest.raises(StoreUnavailable, match="nonsense") as caught:
        open_store(url, options=options).check()
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("action", ["write", "read"])
def test_failing_store_does_not_show_options(action: str) -> None:
    """What a driver says about its options reaches the user with the secrets struck out."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    options = {"key": "AK" + CANARY, "secret": CANARY, "client_kwargs": {"endpoint_url": f"no-url-{CANARY}"}}
    store = open_store("s3://bucket/x", options=options)
    with pytest.raises(ChapkitFlowsError, match="no-url-") as caught:
        store.put(BytesIO(b"x")) if action == "write" else store.has("sha256:" + "0" * 64)
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    assert CANARY not in repr(store)
