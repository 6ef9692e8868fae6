"""Where a table is read from: any URL that fsspec opens, and what kind of file it is."""

from __future__ import annotations

import io
import lzma
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from chapkit_flows.errors import DataNotFound

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "adl": "azure",
    "sftp": "sftp",
    "ssh": "sftp",
}

# The base errors of the drivers below fsspec that are not OSErrors; looked up only in drivers already loaded.
_DRIVER_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("gcsfs.retry", "HttpError"),
    ("azure.core.exceptions", "AzureError"),
    ("asyncssh", "Error"),
)
# What broken archives raise (`zip://a.csv::broken.zip`).
_ARCHIVE_ERRORS = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)
# What drivers raise before they have opened anything when the URL lacks what they need (`reference://x`, `dir://x`).
_OPENING_ERRORS = (TypeError, AttributeError, LookupError, RuntimeError)


@contextmanager
def open_source(uri: str) -> Iterator[BinaryIO]:
    """Open a path or any fsspec URL for reading bytes.

    Raises:
        DataNotFound: There is nothing readable at `uri`; also raised while reading, when the connection breaks.
    """
    place = _expanded(uri)
    with _wrapped(uri, *_OPENING_ERRORS):
        system, path = fsspec.core.url_to_fs(place, **_host_checks(place))
        inner = system.open(path, "rb")
    with inner:
        yield cast(BinaryIO, _Source(uri, inner))


def _host_checks(uri: str) -> dict[str, Any]:
    """Options by scheme. sshfs would take any host for the right one: check it as ssh does, unless fsspec's own
    configuration, in which a user can also name another file or None, says otherwise.
    """
    schemes = {part.partition("://")[0] for part in uri.split("::")} & {"sftp", "ssh"}
    # The empty tuple stands for ~/.ssh/known_hosts.
    return {
        scheme: {"known_hosts": ()} for scheme in schemes if "known_hosts" not in fsspec.config.conf.get(scheme, {})
    }


def _expanded(uri: str) -> str:
    if not uri.startswith("~"):
        return uri
    try:
        return str(Path(uri).expanduser())
    except RuntimeError as error:
        raise DataNotFound(f"{uri}: there is no user {uri[1:].split('/')[0]!r} here. Write the whole path.") from error


def media_type_of(uri: str, head: bytes) -> str:
    """Tell Parquet, GeoJSON and CSV apart by the first bytes of the file, then by the ending of `uri`."""
    ending = re.split(r"[?#]", uri)[0].lower()
    if head.startswith(b"PAR1") or ending.endswith((".parquet", ".pq")):
        return "application/vnd.apache.parquet"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") or ending.endswith((".geojson", ".json")):
        return "application/geo+json"
    return "text/csv"


def mask_uri(text: str) -> str:
    """Hide the secrets of the URLs in `text`: user and password before the host, and the query with its signatures."""
    return re.sub(r"(\w://\S*?)\?[^\s'\"]+", r"\1?***", re.sub(r"://[^/\s'\"]*@", "://***@", text))


class _Source(io.RawIOBase):
    """The bytes of an open file; a failure while reading says which file it was."""

    def __init__(self, uri: str, inner: Any) -> None:
        self._uri = uri
        self._inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._inner.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._inner.seek(offset, whence))

    def tell(self) -> int:
        return int(self._inner.tell())

    def readinto(self, buffer: Any, /) -> int:
        with _wrapped(self._uri):
            chunk = self._inner.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


@contextmanager
def _wrapped(uri: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise DataNotFound(_missing_driver(uri, error)) from error
    except (*_failures(), *errors) as error:
        # A driver may repeat the URL with its password: then its own error must not reach the log as the cause.
        text = str(error)
        raise DataNotFound(_refusal(uri, error)) from (error if mask_uri(text) == text else None)


def _failures() -> tuple[type[Exception], ...]:
    found = [getattr(sys.modules.get(module), name, None) for module, name in _DRIVER_ERRORS]
    return (OSError, ValueError, *_ARCHIVE_ERRORS, *(error for error in found if error is not None))


def _missing_driver(uri: str, error: ImportError) -> str:
    scheme = uri.split("://", maxsplit=1)[0]
    if scheme in _EXTRAS:
        return (
            f"{mask_uri(uri)} cannot be opened: the driver for {scheme}:// is not installed. "
            f'Install it with: pip install "chapkit-flows[{_EXTRAS[scheme]}]"'
        )
    return f"{mask_uri(uri)} cannot be opened: the driver for {scheme}:// is not installed ({error})."


def _refusal(uri: str, error: Exception) -> str:
    name = mask_uri(uri)
    if isinstance(error, FileNotFoundError):
        return _absence(name, error.__cause__)
    if isinstance(error, IsADirectoryError):
        return f"{name} is a folder. Name the CSV or Parquet file in it."
    if isinstance(error, PermissionError):
        return f"{name} may not be read: permission denied. Check your rights or credentials."
    reason = mask_uri(str(error)) or type(error).__name__
    if type(error).__name__ == "HostKeyNotVerifiable":
        return (
            f"{name} cannot be read: {reason.rstrip('.')}. Connect to the host once with ssh, which adds its key to "
            "~/.ssh/known_hosts, or ask its administrator for the key."
        )
    if isinstance(error, _ARCHIVE_ERRORS):
        return f"{name} is in an archive that cannot be read: {reason}. Make the archive again."
    if isinstance(error, (ValueError, *_OPENING_ERRORS)):
        return f"{name} is not a path or URL that can be opened: {reason}"
    return f"{name} cannot be read: {reason}. Check the URL, the connection and your credentials."


def _absence(name: str, behind: BaseException | None) -> str:
    """Why there is nothing: fsspec's http driver calls everything a missing file, and keeps the reason as the cause."""
    status = getattr(behind, "status", None)
    if isinstance(status, int) and status not in (404, 410):
        answer = f"{status} {getattr(behind, 'message', '')}".strip()
        return f"{name} cannot be read: the server answers {answer}. Check the URL and your credentials."
    if status is None and isinstance(behind, OSError) and not isinstance(behind, FileNotFoundError):
        reason = mask_uri(str(behind)) or type(behind).__name__
        return f"{name} cannot be reached: {reason}. Check the URL and the connection."
    return f"{name} does not exist{_seen_from(name)}. Check the path."


def _seen_from(name: str) -> str:
    """The folder where a relative path was looked for: of a deployed run few know it."""
    return "" if "://" in name or Path(name).expanduser().is_absolute() else f", seen from {Path.cwd()}"
