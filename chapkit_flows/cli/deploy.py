"""The command that writes a model's deployment into `prefect.yaml`, and deploys it."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from pydantic import ValidationError

from chapkit_flows.cli.deployed import find_idle
from chapkit_flows.cli.limits import share_limit
from chapkit_flows.cli.output import print_json, print_line, say
from chapkit_flows.cli.prefect_yaml import Entry, PrefectYaml, Schedule
from chapkit_flows.cli.runs import find_model
from chapkit_flows.cli.server import run_here
from chapkit_flows.configs.documents import load_config
from chapkit_flows.data.sources import mask_uri
from chapkit_flows.errors import InvalidDeployment
from chapkit_flows.flows.model import Model
from chapkit_flows.flows.training import LATEST

DEFAULT_POOL = "forecasts"
# A second run waits: it finds what the first has trained, and that nothing is new. With --apply, and after
# `limits apply`, it waits for the other deployments that train the model as well.
ONE_AT_A_TIME = {"limit": 1, "collision_strategy": "ENQUEUE"}
_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_TRAINING = ("data", "geo")
_INPUTS = {"train": _TRAINING, "retrain": _TRAINING, "backtest": _TRAINING, "predict": ("historic", "future", "geo")}
_NEEDED = {"train": ("data",), "retrain": ("data",), "backtest": ("data",), "predict": ("historic", "future")}
_DESCRIPTIONS = {
    "train": "Train {name}.",
    "retrain": "Train {name} again when its data, config or code is new.",
    "backtest": "Say how good {name} is: forecasts from past origins, scored with what came after.",
    "predict": "Predict with the newest trained {name}.",
}


def deploy(options: argparse.Namespace) -> int:
    """Write or update an entry of `prefect.yaml`; show what changes; deploy it if asked to."""
    schedule = _read_schedule(options)
    document = PrefectYaml(options.file)
    model = find_model(options.model)
    _check_inputs(options)
    module = _module_for(model, options)
    entry = _make_entry(model, options, document, schedule)
    placed = document.put(entry)
    pool = str(placed["work_pool"]["name"])
    warnings = _look_at_server(model, options, pool)
    warnings += _inactive(placed) if schedule else []
    changed = document.render() if document.render() != document.text else None
    if not options.dry_run:
        _write(document, changed, module)
    command = ["prefect", "--no-prompt", "deploy", "--name", _pattern(document, entry)]
    if options.file.name != "prefect.yaml":
        command += ["--prefect-file", options.file.name]
    deployed = options.apply and not options.dry_run
    full_name = f"{model.name}-{options.flow}/{entry.name}"
    if deployed:
        _apply(model, command, full_name, options)
    if options.json:
        print_json(
            {
                "deployment": full_name,
                "file": str(options.file),
                "changed": changed is not None or module is not None,
                "written": not options.dry_run,
                "deployed": deployed,
                "command": shlex.join(command),
                "warnings": warnings,
            }
        )
        return 0
    _report(document, changed, module, options)
    for warning in warnings:
        say(f"warning: {warning}")
    _say_next(full_name, command, options, deployed=deployed)
    return 0


def _read_schedule(options: argparse.Namespace) -> Schedule | None:
    """The schedule, if it is one that fires.

    Raises:
        InvalidDeployment: It cannot be read, or no date fits it.
    """
    if options.schedule is None:
        if options.timezone is not None:
            raise InvalidDeployment("--timezone goes with --schedule.")
        return None
    zone = options.timezone or "UTC"
    try:
        cron = CronSchedule(cron=options.schedule, timezone=zone)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidDeployment(
            f"--schedule {options.schedule!r}, --timezone {zone!r}: {reason}. Write minute, hour, day, month and "
            'weekday, such as "0 6 * * 1" for Mondays at six, and a zone such as Europe/Oslo.'
        ) from error
    try:
        coming = asyncio.run(cron.get_dates(n=1))
    except ValueError:  # what the library raises when it finds no date
        coming = []
    if not coming:
        raise InvalidDeployment(
            f"--schedule {options.schedule!r} never fires: no date fits it. Correct its day and month."
        )
    return Schedule(cron=options.schedule, timezone=options.timezone)


def _check_inputs(options: argparse.Namespace) -> None:
    """Refuse inputs that the flow does not take, and a schedule whose runs would have none."""
    given = {name: getattr(options, name) for name in ("data", "historic", "future", "geo", "config")}
    taken = (*_INPUTS[options.flow], *(() if options.flow == "predict" else ("config",)))
    wrong = [f"--{name}" for name, value in given.items() if value is not None and name not in taken]
    if wrong:
        raise InvalidDeployment(f"{', '.join(wrong)}: the flow {options.flow} does not take that. See --flow.")
    root = options.file.parent
    for name in ("data", "historic", "future", "geo"):
        uri = given[name]
        if uri is not None and "://" not in uri and not (root / Path(uri).expanduser()).exists():
            say(f"warning: --{name} {uri} is not there now, seen from {root.resolve()}: there the runs look for it.")
        if uri is not None and _PASSWORD.search(uri):
            say(
                f"warning: --{name} {mask_uri(uri)} holds a password, which anybody can read in {options.file} and in "
                "Prefect's UI. Give it to the workers by the environment variables of the storage instead."
            )


def _make_entry(model: Model, options: argparse.Namespace, document: PrefectYaml, schedule: Schedule | None) -> Entry:
    name = options.name or f"{model.name}-{options.flow}"
    entrypoint = _entrypoint(model, options)
    known = document.find(name, entrypoint)
    parameters = {key: getattr(options, key) for key in _INPUTS[options.flow] if getattr(options, key) is not None}
    there = dict(known.get("parameters") or {}) if known is not None else {}
    if options.flow == "predict":
        parameters |= {} if "model" in there else {"model": f"{model.name}@{LATEST}"}
    elif options.config is not None:
        slug = f"{model.config.get_block_type_slug()}/{_config_name(model, options.config)}"
        # By slug only: Prefect would resolve any other reference here, and write secret values into the deployment.
        parameters = {"config": {"$ref": {"block_document_slug": slug}}} | parameters
    elif "config" not in there:
        parameters = {"config": {}} | parameters
    missing = [key for key in _NEEDED[options.flow] if key not in parameters and key not in there]
    if schedule is not None and missing:
        needed = " and ".join(f"--{key} URI" for key in missing)
        raise InvalidDeployment(f"A scheduled run has nobody to ask for its data. Pass {needed}.")
    pools = document.pools()
    has_pool = known is not None and known.get("work_pool")
    new: dict[str, Any] = {"description": _DESCRIPTIONS[options.flow].format(name=model.name), "tags": [model.name]}
    new |= {"concurrency_limit": ONE_AT_A_TIME} if options.flow in ("train", "retrain") else {}
    return Entry(
        name=name,
        entrypoint=entrypoint,
        parameters=parameters,
        pool=options.pool or (None if has_pool else pools[0] if len(pools) == 1 else DEFAULT_POOL),
        schedule=schedule,
        new=new,
    )


def _config_name(model: Model, config: str) -> str:
    """The name of a saved config, given as `name` or as `type/name`."""
    block_type, slash, name = config.rpartition("/")
    expected = model.config.get_block_type_slug()
    if slash and block_type != expected:
        raise InvalidDeployment(
            f"--config {config}: the configs of the model {model.name} are of type {expected}, not {block_type}. "
            f"Write {expected}/{name}, or the name alone."
        )
    return name


def _entrypoint(model: Model, options: argparse.Namespace) -> str:
    file = _file_below(model, options.file.parent)
    if file is None:
        return f"{_module_file(model)}:{options.flow}"
    assert model.entrypoint is not None
    return f"{file}:{model.entrypoint.rpartition(':')[2]}.{options.flow}"


def _file_below(model: Model, root: Path) -> str | None:
    """The model's file relative to the folder of `prefect.yaml`; None if it lies elsewhere or has no name."""
    file = model.definition.file
    if file is None or model.entrypoint is None or not file.is_relative_to(root.resolve()):
        return None
    # An installed package may lie in an environment below the folder: its name is what leads there.
    relative = file.relative_to(root.resolve())
    return None if "site-packages" in relative.parts else relative.as_posix()


def _module_file(model: Model) -> str:
    return f"deployments/{model.name.replace('-', '_')}.py"


def _module_for(model: Model, options: argparse.Namespace) -> tuple[Path, str] | None:
    """A module that names the flows of a model which is installed; None if there is one, or none is needed.

    Raises:
        InvalidDeployment: The model is a file that workers would not find.
    """
    if _file_below(model, options.file.parent) is not None:
        return None
    if ".py" in options.model:
        raise InvalidDeployment(
            f"{options.model} is not below {options.file.parent.resolve()}, from where the runs start. Go to its "
            "folder, or pass --file PATH/prefect.yaml with a folder above it."
        )
    file = options.file.parent / _module_file(model)
    if file.exists():
        return None
    text = (
        f'"""The model {model.name} as deployed flows: prefect.yaml names them."""\n\n'
        f"from chapkit_flows import load_model\n\n_model = load_model({options.model!r})\n"
        "train, retrain, predict, backtest = _model.train, _model.retrain, _model.predict, _model.backtest\n"
    )
    return file, text


def _look_at_server(model: Model, options: argparse.Namespace, pool: str) -> list[str]:
    """What a run of the deployment would wait for without end.

    Raises:
        ConfigNotFound: The saved config is not there.
        InvalidDeployment: The work pool is not there.
    """
    if not PREFECT_API_URL.value():
        if options.apply:
            raise InvalidDeployment("There is no server to deploy to. Set PREFECT_API_URL, or leave out --apply.")
        return ["PREFECT_API_URL is not set: nobody has looked whether the work pool and the config are there."]

    async def look() -> list[str]:
        if options.config is not None:
            await load_config(model.config, _config_name(model, options.config))
        async with get_client() as client:
            return await _look_at_pool(client, pool)

    return run_here(look(), options, follow=False)


async def _look_at_pool(client: PrefectClient, name: str) -> list[str]:
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound as error:
        known = ", ".join(sorted(found.name for found in await client.read_work_pools())) or "none"
        raise InvalidDeployment(
            f"There is no work pool {name!r} on the server (there: {known}). "
            f"Make it with: prefect work-pool create {shlex.quote(name)} --type process"
        ) from error
    return await find_idle(client, pool)


def _inactive(entry: Mapping[str, Any]) -> list[str]:
    off = [item for item in entry.get("schedules") or () if item.get("active") is False]
    return [f"the schedule {item.get('slug')!r} is switched off: active: false" for item in off]


def _write(document: PrefectYaml, changed: str | None, module: tuple[Path, str] | None) -> None:
    if module is not None:
        file, text = module
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InvalidDeployment(f"{file} cannot be written: {error.strerror}.") from error
    if changed is not None:
        document.write(changed)


def _pattern(document: PrefectYaml, entry: Entry) -> str:
    """What `prefect deploy --name` finds this entry by, and no other."""
    alone = [found for found in document.entries if found.get("name") == entry.name]
    return entry.name if len(alone) == 1 else f"{entry.entrypoint.rpartition(':')[2]}/{entry.name}"


def _apply(model: Model, command: list[str], full_name: str, options: argparse.Namespace) -> None:
    """Deploy with Prefect's own command, from the folder of the file; what that does not do, do afterwards.

    The run form is to know the config type, and what trains a model is to share its limit.

    Raises:
        InvalidDeployment: It refused; the message has what it said.
    """
    folder = options.file.parent.resolve()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=os.environ | {"PWD": str(folder)},  # prefect.yaml names it
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InvalidDeployment(f"{shlex.join(command)} failed:\n{done.stdout.strip()}")

    async def complete() -> None:
        async with get_client() as client:
            await model.config.aregister_type_and_schema(client=client)
            if options.flow != "predict":
                await share_limit(client, model.name, full_name)

    run_here(complete(), options, follow=False)


def _report(
    document: PrefectYaml, changed: str | None, module: tuple[Path, str] | None, options: argparse.Namespace
) -> None:
    files = [(document.file, document.text, changed)] if changed is not None else []
    files += [(module[0], "", module[1])] if module is not None else []
    if not files:
        print_line(f"{document.file} says so already. Nothing to change.")
    for file, before, after in files:
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), str(file), str(file), lineterm="")
        print_line("\n".join(lines))
        print_line(f"\n{file} {'would be' if options.dry_run else 'is'} {'changed' if before else 'new'}.")


def _say_next(full_name: str, command: list[str], options: argparse.Namespace, *, deployed: bool) -> None:
    folder = options.file.parent
    if deployed:
        print_line(f"Deployed {full_name}. Run it now:\n  prefect deployment run {full_name}")
        return
    where = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))} && "
    print_line(f"Deploy it:\n  {where}{shlex.join(command)}")
