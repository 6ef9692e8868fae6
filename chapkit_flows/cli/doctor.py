"""The command that checks the installation."""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from chapkit_flows import __version__
from chapkit_flows.cli.deployed import Deployed, config_types, find_deployments, find_idle, read_entrypoints
from chapkit_flows.cli.limits import limit_of
from chapkit_flows.cli.output import print_json, print_line, print_table, size_text
from chapkit_flows.cli.server import explain_refusal
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.data.sources import mask_uri
from chapkit_flows.errors import ChapkitFlowsError
from chapkit_flows.lineage.engine import open_database
from chapkit_flows.lineage.migrations import read_revision
from chapkit_flows.lineage.query import list_runs
from chapkit_flows.models.discovery import installed_models
from chapkit_flows.resources import open_artifacts
from chapkit_flows.settings import ChapkitFlowsSettings

CLOCK_SECONDS = 5
"""A clock that differs by more moves schedules and the order of runs. The answer of the server tells whole seconds."""
LITTLE_SPACE = 2_000_000_000
NO_SPACE = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found; the detail ends in what to do about it."""

    check: str
    status: Literal["ok", "warning", "error"]
    detail: str


def examine(options: argparse.Namespace) -> int:
    """Check server, work pools, block types, database, store, disk and versions; 1 if something is wrong."""
    settings = ChapkitFlowsSettings()
    deployed = read_entrypoints(options.file)
    findings = [*_versions(), *_server(options.pool, deployed), *_entrypoints(deployed)]
    findings += [_database(settings), _store(settings), *_disk(settings), _models()]
    healthy = all(finding.status != "error" for finding in findings)
    if options.json:
        print_json({"healthy": healthy, "checks": [asdict(finding) for finding in findings]})
    else:
        print_table(("check", "status", "detail"), [(f.check, f.status, f.detail) for f in findings])
        print_line(f"\n{_verdict(findings)}")
    return 0 if healthy else 1


def _verdict(findings: Sequence[Finding]) -> str:
    found = {finding.status for finding in findings}
    if "error" in found:
        return "Something is wrong: see the errors above."
    return "It works; see the warnings above." if "warning" in found else "All is well."


def _versions() -> Iterator[Finding]:
    names = ("prefect", "pandas", "sqlmodel", "fsspec")
    installed = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding(
        check="versions",
        status="ok",
        detail=f"chapkit-flows {__version__}, Python {platform.python_version()}, {installed}",
    )


def _server(pools: Sequence[str], deployed: Sequence[Deployed]) -> list[Finding]:
    url = PREFECT_API_URL.value()
    if not url:
        detail = "none set (PREFECT_API_URL): each command starts a temporary one; for the UI: prefect server start"
        return [Finding(check="server", status="warning", detail=detail)]

    async def ask() -> list[Finding]:
        async with get_client() as client:
            if trouble := await client.api_healthcheck():
                raise trouble
            there = await find_deployments(client, deployed)
            used = [one.work_pool_name for one in there if one.work_pool_name]
            return [
                await _version_match(client, url),
                await _clock(client),
                *[await _pool(client, name) for name in dict.fromkeys([*pools, *used])],
                *_limits(deployed, there),
                *[await _block_type(client, one) for one in config_types(deployed)],
            ]

    try:
        return asyncio.run(ask())
    except (httpx.HTTPError, RuntimeError, ValueError) as error:  # ValueError: an answer that is not JSON
        return [Finding(check="server", status="error", detail=str(explain_refusal(url, error)))]


async def _version_match(client: PrefectClient, url: str) -> Finding:
    theirs, mine = await client.api_version(), version("prefect")
    if theirs.split(".")[:2] != mine.split(".")[:2]:
        detail = f"{mask_uri(url)} runs Prefect {theirs}, this installation {mine}. Use the same minor version."
        return Finding(check="server", status="warning", detail=detail)
    return Finding(check="server", status="ok", detail=f"{mask_uri(url)}, Prefect {theirs}")


async def _clock(client: PrefectClient) -> Finding:
    before = time.time()
    answer = await client.hello()
    middle = (before + time.time()) / 2
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return Finding(check="clock", status="ok", detail="the server does not tell its time")
    off = theirs - middle
    here = f"this machine {datetime.fromtimestamp(middle, UTC):%H:%M:%S} UTC"
    if abs(off) <= CLOCK_SECONDS:
        return Finding(check="clock", status="ok", detail=f"as that of the server; {here}")
    detail = f"the server's clock is {off:+.0f} s off; {here}. Let both follow a time server (NTP)."
    return Finding(check="clock", status="error", detail=detail)


async def _pool(client: PrefectClient, name: str) -> Finding:
    check = f"work pool {name}"
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        detail = f"is not on the server. Make it: prefect work-pool create {name} --type process"
        return Finding(check=check, status="error", detail=detail)
    idle = await find_idle(client, pool)
    if idle:
        return Finding(check=check, status="error", detail="; ".join(idle))
    return Finding(check=check, status="ok", detail=f"{pool.type}, takes runs")


def _limits(deployed: Sequence[Deployed], there: Sequence[DeploymentResponse]) -> Iterator[Finding]:
    """Which models two deployments may train at once."""
    limits = {(one.name, one.entrypoint): one.global_concurrency_limit for one in there}
    trainings = [one for one in deployed if one.trains and (one.name, one.entrypoint) in limits]
    for model in dict.fromkeys(str(one.model) for one in trainings):
        alike = [one for one in trainings if one.model == model]
        found = [limits[one.name, one.entrypoint] for one in alike]
        if len(alike) > 1 and any(limit is None or limit.name != limit_of(model) for limit in found):
            names = ", ".join(one.full_name for one in alike)
            detail = f"{names} may train the model at once. Let them take turns: chapkit-flows limits apply"
            yield Finding(check=f"limit of {model}", status="warning", detail=detail)


async def _block_type(client: PrefectClient, config_type: type[ModelConfig]) -> Finding:
    slug = config_type.get_block_type_slug()
    check, remedy = f"block type {slug}", "Register it: chapkit-flows deploy MODEL --apply, or blocks apply blocks/"
    try:
        await client.read_block_type_by_slug(slug)
    except ObjectNotFound:
        detail = f"is not on the server, so that the run form cannot offer its configs. {remedy}"
        return Finding(check=check, status="warning", detail=detail)
    checksum = config_type._calculate_schema_checksum()
    try:
        await client.read_block_schema_by_checksum(checksum, version=config_type.get_block_schema_version())
    except ObjectNotFound:
        detail = f"the server has other fields than {config_type.__name__} has now. {remedy}"
        return Finding(check=check, status="warning", detail=detail)
    return Finding(check=check, status="ok", detail=f"registered with the fields of {config_type.__name__}")


def _entrypoints(deployed: Sequence[Deployed]) -> Iterator[Finding]:
    for found in deployed:
        if found.error:
            yield Finding(check=f"deployment {found.name}", status="error", detail=found.error)


def _database(settings: ChapkitFlowsSettings) -> Finding:
    def look() -> str:
        database = open_database(settings.resolved_database_url())
        runs = list_runs(database, limit=1)
        with database.read() as session:
            revision = read_revision(session.connection())
        return f"{database.url}, revision {revision}, {'newest run ' + runs[0].id if runs else 'no runs yet'}"

    return _try("database", look)


def _store(settings: ChapkitFlowsSettings) -> Finding:
    def probe() -> str:
        store = open_artifacts(settings)
        store.probe()
        return f"{store.url}, written, read back and removed"

    return _try("store", probe)


def _disk(settings: ChapkitFlowsSettings) -> Iterator[Finding]:
    """Free space below the home of this package, and where data is copied to while it is read."""
    home = settings.home.expanduser().absolute()
    for check, folder in (("disk", home), ("temporary disk", Path(tempfile.gettempdir()))):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        status: Literal["ok", "warning", "error"] = "ok"
        if free < LITTLE_SPACE:
            status = "error" if free < NO_SPACE else "warning"
        remedy = "" if status == "ok" else ". Free space, or move it: see chapkit-flows gc, and the settings"
        yield Finding(check=check, status=status, detail=f"{size_text(free)} free at {there}{remedy}")


def _models() -> Finding:
    names = ", ".join(sorted(installed_models())) or "none; a path/to/file.py:name works without installing"
    return Finding(check="models", status="ok", detail=f"installed: {names}")


def _try(check: str, function: Callable[[], str]) -> Finding:
    try:
        return Finding(check=check, status="ok", detail=function())
    except ChapkitFlowsError as error:
        return Finding(check=check, status="error", detail=str(error))
