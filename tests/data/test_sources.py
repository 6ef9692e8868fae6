"""Opening a URI: what is read, and what the messages say when it cannot be."""

from __future__ import annotations

import io
import re
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import _registry
from servers import sftp_server

from chapkit_flows.artifacts.store import open_store
from chapkit_flows.data.sources import mask_uri, media_type_of, open_source
from chapkit_flows.errors import DataNotFound, StoreUnavailable


@pytest.fixture
def memory_file() -> Iterator[str]:
    uri = "memory://chapkit-flows-tests/data.csv"
    with fsspec.open(uri, "wb") as file:
        file.write(b"content")
    yield uri
    fsspec.filesystem("memory").rm("/chapkit-flows-tests", recursive=True)


@pytest.mark.parametrize("prefix", ["", "file://", "~"])
def test_local_files_are_opened(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a file URL and a path below the home directory all lead to the bytes."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data.csv").write_bytes(b"content")
    uri = "~/data.csv" if prefix == "~" else f"{prefix}{tmp_path}/data.csv"
    with open_source(uri) as file:
        assert b"content" == file.read()


def test_says_from_where_a_relative_path_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a relative path that is not there the folder is told: whoever starts a deployed run does not know it."""
    monkeypatch.chdir(tmp_path)
    expected = f"gone.csv does not exist, seen from {tmp_path}. Check the path."
    with pytest.raises(DataNotFound, match=f"^{re.escape(expected)}$"), open_source("gone.csv"):
        pass


def test_other_file_systems_are_opened(memory_file: str) -> None:
    """Any scheme that fsspec knows works; the file can be read in parts and sought."""
    with open_source(memory_file) as file:
        assert b"con" == file.read(3)
        assert 3 == file.tell()
        assert 0 == file.seek(0)
        assert b"content" == file.read()
        assert file.seekable()


def test_sftp_host_must_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose key is not among the known ones gets no password and gives no data, unless the user wants it so."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "data.csv").write_bytes(b"content")
    with sftp_server(tmp_path) as site:
        uri = f"{site.url}/data.csv".replace("://", "://tester:test-secret@")
        with pytest.raises(DataNotFound, match=r"key is not trusted.*Connect to the host once with ssh") as caught:
            read(uri)
        assert "test-secret" not in str(caught.value)
        with monkeypatch.context() as configured:
            configured.setitem(fsspec.config.conf, "sftp", {"known_hosts": None})
            assert b"content" == read(uri)
        (home / ".ssh" / "known_hosts").write_text(Path(site.options["known_hosts"]).read_text())
        assert b"content" == read(uri)
        fsspec.get_filesystem_class("sftp").clear_instance_cache()


def read(uri: str) -> bytes:
    with open_source(uri) as file:
        return file.read()


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is named."""
    with pytest.raises(DataNotFound, match=r"gone\.csv does not exist"), open_source(str(tmp_path / "gone.csv")):
        pass


def test_folder(tmp_path: Path) -> None:
    """A folder is not a table."""
    with pytest.raises(DataNotFound, match="is a folder"), open_source(str(tmp_path)):
        pass


def test_unknown_scheme() -> None:
    """A scheme that no driver has is named."""
    with pytest.raises(DataNotFound, match=r"nosuch://x/y\.csv is not a path or URL"), open_source("nosuch://x/y.csv"):
        pass


@pytest.mark.parametrize(
    ("extra", "driver", "uri"),
    [
        ("gcs", "gcsfs", "gs://bucket/x.csv"),
        ("azure", "adlfs", "az://bucket/x.csv"),
        ("s3", "s3fs", "s3://bucket/x.csv"),
    ],
)
def test_missing_driver_names_the_extra(extra: str, driver: str, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the driver of a scheme the message says which extra to install, for a table and for a store."""
    monkeypatch.setitem(sys.modules, driver, None)
    monkeypatch.delitem(_registry, uri.partition(":")[0], raising=False)
    with pytest.raises(DataNotFound) as caught, open_source(uri):
        pass
    assert f'pip install "chapkit-flows[{extra}]"' in str(caught.value)
    with pytest.raises(StoreUnavailable) as refused:
        open_store(uri)
    assert f'pip install "chapkit-flows[{extra}]"' in str(refused.value)


@pytest.mark.parametrize(
    ("said", "uri"),
    [
        ("there is no user 'nosuchuser' here", "~nosuchuser/x.csv"),
        ("is in an archive that cannot be read: File is not a zip file", "zip://a.csv::{folder}/broken.zip"),
        ("is in an archive that cannot be read: truncated header", "tar://a.csv::{folder}/broken.tar"),
        ("is not a path or URL that can be opened", "reference://x"),
        ("is not a path or URL that can be opened", "dir://x"),
        ("does not exist", "zip://gone.csv::{folder}/whole.zip"),
        ("cannot be reached: ", "http://127.0.0.1:9/data.csv"),
    ],
)
def test_uris_that_drivers_stumble_over(said: str, uri: str, tmp_path: Path) -> None:
    """Whatever a driver raises, the URI is named, with what is wrong with it."""
    for name in ("broken.zip", "broken.tar"):
        (tmp_path / name).write_bytes(b"no archive")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("data.csv", "content")
    with pytest.raises(DataNotFound) as caught, open_source(uri.format(folder=tmp_path)):
        pass
    assert str(caught.value).startswith(uri.format(folder=tmp_path))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("said", "status"),
    [("does not exist", 404), ("the server answers 403 Forbidden. Check the URL and your credentials", 403)],
)
def test_answers_of_a_web_server(said: str, status: int) -> None:
    """Only what the server does not have does not exist; other answers are told."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with pytest.raises(DataNotFound) as caught, open_source(f"http://127.0.0.1:{web.server_port}/data.csv"):
            pass
        web.shutdown()
    assert said in str(caught.value)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without the right to read it is named, with the remedy."""
    path = tmp_path / "data.csv"
    path.write_bytes(b"content")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # The tests may run as root, to whom every file is readable.
    monkeypatch.setattr(fsspec.get_filesystem_class("file"), "open", refuse)
    with pytest.raises(DataNotFound, match=r"data\.csv may not be read: permission denied"), open_source(str(path)):
        pass


def test_a_refused_connection_is_named_without_its_password() -> None:
    """A server that does not answer gives DataNotFound; user and password stand neither in it nor in its causes."""
    with pytest.raises(DataNotFound) as caught, open_source("http://ann:hunter2@127.0.0.1:9/data.csv") as file:
        file.read()
    error: BaseException | None = caught.value
    assert "http://***@127.0.0.1:9/data.csv" in str(error)
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__


def test_a_connection_that_breaks_while_reading(memory_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the middle of a file is named like one at its start."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "open", lambda *_, **__: Broken())
    with (
        open_source(memory_file) as file,
        pytest.raises(DataNotFound, match=r"data\.csv cannot be read: reset by peer"),
    ):
        file.read(10)


@pytest.mark.parametrize(
    ("masked", "text"),
    [
        ("s3://bucket/a.csv", "s3://bucket/a.csv"),
        ("/data/a.csv", "/data/a.csv"),
        ("sftp://***@host/a.csv", "sftp://ann:pa@ss@host/a.csv"),
        ("https://host/a.csv?***", "https://host/a.csv?sig=abc&se=1"),
        ("cannot reach 'ftp://***@host' now", "cannot reach 'ftp://u:p@host' now"),
        ("simplecache::ftp://***@host/a", "simplecache::ftp://u:p@host/a"),
    ],
)
def test_secrets_are_masked(masked: str, text: str) -> None:
    """Credentials and signatures in URLs are hidden; everything else stays."""
    assert masked == mask_uri(text)


@pytest.mark.parametrize(
    ("media_type", "uri", "head"),
    [
        ("text/csv", "data.csv", b"time_period,location"),
        ("text/csv", "data", b""),
        ("application/vnd.apache.parquet", "data.csv", b"PAR1\x15"),
        ("application/vnd.apache.parquet", "https://host/data.PARQUET?sig=1", b"not parquet"),
        ("application/geo+json", "map", b'\xef\xbb\xbf \n{"type": "FeatureCollection"'),
        ("application/geo+json", "map.geojson", b""),
    ],
)
def test_media_types(media_type: str, uri: str, head: bytes) -> None:
    """The first bytes decide before the ending does."""
    assert media_type == media_type_of(uri, head)
