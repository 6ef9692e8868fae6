"""The command that checks the installation."""

from __future__ import annotations

import argparse
import asyncio
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import BytesIO
from typing import Literal

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from chapkit_flows import __version__
from chapkit_flows.cli.output import print_json, print_line, print_table
from chapkit_flows.cli.server import explain_refusal
from chapkit_flows.data.sources import mask_uri
from chapkit_flows.errors import ChapkitFlowsError
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.query import list_runs
from chapkit_flows.models.discovery import installed_models
from chapkit_flows.resources import open_artifacts
from chapkit_flows.settings import ChapkitFlowsSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    status: Literal["ok", "warning", "error"]
    detail: str


def examine(options: argparse.Namespace) -> int:
    """Check server, database, store and versions; 1 if something is wrong."""
    settings = ChapkitFlowsSettings()
    findings = [*_versions(), _server(), _database(settings), _store(settings), _models()]
    healthy = all(finding.status != "error" for finding in findings)
    if options.json:
        print_json({"healthy": healthy, "checks": [asdict(finding) for finding in findings]})
    else:
        print_table(("check", "status", "detail"), [(f.check, f.status, f.detail) for f in findings])
        print_line("\nAll is well." if healthy else "\nSomething is wrong: see the errors above.")
    return 0 if healthy else 1


def _versions() -> Iterator[Finding]:
    names = ("prefect", "pandas", "sqlmodel", "fsspec")
    installed = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding(
        check="versions",
        status="ok",
        detail=f"chapkit-flows {__version__}, Python {platform.python_version()}, {installed}",
    )


def _server() -> Finding:
    url = PREFECT_API_URL.value()
    if not url:
        detail = "none set (PREFECT_API_URL): each command starts a temporary one; for the UI: prefect server start"
        return Finding(check="server", status="warning", detail=detail)

    async def ask() -> tuple[Exception | None, str]:
        async with get_client() as client:
            return await client.api_healthcheck(), await client.api_version()

    try:
        trouble, theirs = asyncio.run(ask())
    except (httpx.HTTPError, RuntimeError, ValueError) as error:  # ValueError: an answer that is not JSON
        trouble, theirs = error, ""
    if trouble is not None:
        return Finding(check="server", status="error", detail=str(explain_refusal(url, trouble)))
    mine = version("prefect")
    if theirs.split(".")[:2] != mine.split(".")[:2]:
        detail = f"{mask_uri(url)} runs Prefect {theirs}, this installation {mine}. Use the same minor version."
        return Finding(check="server", status="warning", detail=detail)
    return Finding(check="server", status="ok", detail=f"{mask_uri(url)}, Prefect {theirs}")


def _database(settings: ChapkitFlowsSettings) -> Finding:
    def look() -> str:
        database = open_database(settings.resolved_database_url())
        runs = list_runs(database, limit=1)
        return f"{database.url}, {'newest run ' + runs[0].id if runs else 'no runs yet'}"

    return _try("database", look)


def _store(settings: ChapkitFlowsSettings) -> Finding:
    def write_and_read() -> str:
        store = open_artifacts(settings)
        stored = store.put(BytesIO(b"chapkit-flows doctor"))
        with store.open(stored.digest) as file:
            file.read()
        return f"{store.url}, written and read back"

    return _try("store", write_and_read)


def _models() -> Finding:
    names = ", ".join(sorted(installed_models())) or "none; a path/to/file.py:name works without installing"
    return Finding(check="models", status="ok", detail=f"installed: {names}")


def _try(check: str, function: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, status="ok", detail=function())
    except ChapkitFlowsError as error:
        return Finding(check=check, status="error", detail=str(error))
