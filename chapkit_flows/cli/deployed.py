"""What a `prefect.yaml` deploys, and whether anybody would run it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import Flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import WorkerStatus, WorkPool
from prefect.client.schemas.responses import DeploymentResponse

from chapkit_flows.cli.prefect_yaml import PrefectYaml
from chapkit_flows.cli.runs import find_model
from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.errors import ChapkitFlowsError, ModelNotFound
from chapkit_flows.flows.model import model_of
from chapkit_flows.models.discovery import import_file, installed_models


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The flow of an entry.

    Attributes:
        name: Of the deployment.
        entrypoint: As it is written.
        flow: The name of the flow; empty if only Prefect knows.
        model: The name of its model; None if the flow is not one of ours.
        trains: Whether it trains that model.
        config: The config class of its model; None if the flow takes none, or is not one of ours.
        error: Why it does not load; empty if it does.
    """

    name: str
    entrypoint: str = ""
    flow: str = ""
    model: str | None = None
    trains: bool = False
    config: type[ModelConfig] | None = None
    error: str = ""

    @property
    def full_name(self) -> str:
        """As Prefect's commands take it."""
        return f"{self.flow}/{self.name}"


def read_entrypoints(file: Path) -> list[Deployed]:
    """What the entries of a `prefect.yaml` name; nothing if there is none."""
    if not file.exists():
        return []
    try:
        document = PrefectYaml(file)
    except ChapkitFlowsError as error:
        return [Deployed(name=str(file), error=str(error))]
    return [_load(str(entry.get("name")), str(entry.get("entrypoint", "")), file.parent) for entry in document.entries]


def _load(name: str, entrypoint: str, folder: Path) -> Deployed:
    path, colon, attribute = entrypoint.rpartition(":")
    if not colon or not path.endswith(".py"):
        return Deployed(name=name, entrypoint=entrypoint)  # a module, or a template: only Prefect knows
    try:
        found: object = import_file((folder / path).resolve())
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        return Deployed(
            name=name, error=f"the entrypoint {entrypoint} names nothing: {error}. Correct it in prefect.yaml."
        )
    except ChapkitFlowsError as error:
        return Deployed(name=name, error=f"the entrypoint {entrypoint} does not load: {error}")
    if not isinstance(found, Flow):
        return Deployed(name=name, error=f"the entrypoint {entrypoint} is no flow. Write my_model.py:name.train.")
    config, model = found.fn.__annotations__.get("config"), model_of(found)
    return Deployed(
        name=name,
        entrypoint=entrypoint,
        flow=found.name,
        model=model,
        trains=model is not None and found.fn.__name__ in ("train", "retrain"),
        config=config if isinstance(config, type) and issubclass(config, ModelConfig) else None,
    )


def config_types(deployed: Sequence[Deployed]) -> list[type[ModelConfig]]:
    """The config classes of deployed and of installed models; of those that ship with this package, if deployed."""
    found = [one.config for one in deployed if one.config is not None]
    return list(dict.fromkeys([*found, *_installed()]))


def _installed() -> Iterator[type[ModelConfig]]:
    for name, point in installed_models().items():
        if point.module == "chapkit_flows.baselines":
            continue
        try:
            yield find_model(name).config
        except ModelNotFound:
            continue  # another package's fault, which its user sees when it is named


async def find_deployments(client: PrefectClient, deployed: Sequence[Deployed]) -> list[DeploymentResponse]:
    """Those of the entries that are on the server."""
    wanted = {(one.name, one.entrypoint) for one in deployed if one.entrypoint}
    if not wanted:
        return []
    names = DeploymentFilter(name=DeploymentFilterName(any_=sorted({name for name, _ in wanted})))
    found = await client.read_deployments(deployment_filter=names)
    return [one for one in found if (one.name, one.entrypoint) in wanted]


async def find_idle(client: PrefectClient, pool: WorkPool) -> list[str]:
    """Why runs in a work pool would wait."""
    name, found = shlex.quote(pool.name), []
    if pool.is_paused:
        found.append(f"the work pool {name} is paused: runs wait. Resume it: prefect work-pool resume {name}")
    if pool.is_push_pool or pool.is_managed_pool:
        return found
    workers = await client.read_workers_for_work_pool(pool.name)
    if not any(worker.status == WorkerStatus.ONLINE for worker in workers):
        found.append(
            f"no worker of the work pool {name} is alive: runs wait until one is. "
            f"Start one: prefect worker start --pool {name}"
        )
    return found
