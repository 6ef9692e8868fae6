"""One training of a model at a time, whichever of its deployments starts it.

A limit in prefect.yaml is one of its deployment alone; Prefect's API lets deployments share one too. A run that finds
it taken waits as `AwaitingConcurrencySlot`. The slot of a run that ends, in whatever way, is free at once; that of a
run which nobody saw end, once its lease of five minutes has run out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from chapkit_flows.cli.deployed import Deployed, read_entrypoints
from chapkit_flows.cli.output import print_json, print_line, print_table
from chapkit_flows.cli.server import run_here
from chapkit_flows.errors import InvalidDeployment

Change = Literal["limited", "unchanged", "not deployed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """What happened to one deployment."""

    deployment: str
    model: str
    change: Change


def limit_of(model: str) -> str:
    """The name of the limit that all deployments which train a model share."""
    return f"chapkit-train-{model}"


def apply(options: argparse.Namespace) -> int:
    """Have the deployments in prefect.yaml that train one model share one limit."""
    if not options.file.exists():
        raise InvalidDeployment(f"There is no {options.file}. Pass --file PATH/prefect.yaml.")
    entries = read_entrypoints(options.file)
    for one in entries:
        if one.error:
            raise InvalidDeployment(f"{options.file}: {one.name}: {one.error}")

    async def work() -> list[Limited]:
        async with get_client() as client:
            return await share_limits(client, [one for one in entries if one.trains])

    limited = run_here(work(), options, follow=False)
    changed = sum(one.change == "limited" for one in limited)
    if options.json:
        rows = [{"deployment": one.deployment, "model": one.model, "change": one.change} for one in limited]
        print_json({"changed": changed, "deployments": rows})
        return 0
    print_table(("deployment", "model", "change"), [(one.deployment, one.model, one.change) for one in limited])
    print_line(f"\n{changed} changed." if changed else "\nNothing to change.")
    return 0


async def share_limits(client: PrefectClient, trainings: Sequence[Deployed]) -> list[Limited]:
    """Have each deployment take the limit of its model."""
    return [
        Limited(deployment=one.full_name, model=one.model, change=await share_limit(client, one.model, one.full_name))
        for one in trainings
        if one.model is not None
    ]


async def share_limit(client: PrefectClient, model: str, deployment: str) -> Change:
    """Have a deployment take the limit of its model, which is made if it is not there."""
    try:
        found = await client.read_deployment_by_name(deployment)
    except ObjectNotFound:
        return "not deployed"
    name, own = limit_of(model), found.global_concurrency_limit
    if own is not None and own.name == name:
        return "unchanged"
    await client.upsert_global_concurrency_limit_by_name(name, 1)
    limit = await client.read_global_concurrency_limit_by_name(name)
    # Neither prefect.yaml nor Prefect's client knows of it. A later `prefect deploy` leaves it, as both limits are 1.
    content = {"global_concurrency_limit_id": str(limit.id), "concurrency_options": {"collision_strategy": "ENQUEUE"}}
    await client.request("PATCH", "/deployments/{id}", path_params={"id": found.id}, json=content)
    if own is not None and own.name == f"deployment:{found.id}":
        with suppress(ObjectNotFound):
            await client.delete_global_concurrency_limit_by_name(own.name)
    return "limited"
