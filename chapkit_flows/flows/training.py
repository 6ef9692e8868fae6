"""The trained model that a prediction starts from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.secrets import restore_secrets
from chapkit_flows.configs.versions import restore_config
from chapkit_flows.errors import (
    ArtifactDeleted,
    ArtifactError,
    ArtifactNotFound,
    InvalidConfig,
    InvalidId,
    RegistryError,
    ValidationFailed,
)
from chapkit_flows.lineage.deletions import get_usable
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import get_artifact, latest_training, producer
from chapkit_flows.lineage.registry import find_version
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.refs import ArtifactRef, Diagnostic

LATEST = "latest"
"""The alias of the newest completed training: `rain@latest`."""

_CODES: dict[type[ArtifactError], str] = {
    ArtifactNotFound: "training_artifact_not_found",
    ArtifactDeleted: "training_artifact_deleted",
    InvalidId: "invalid_training_artifact",
}
_REMEDY = "List the trained models with: chapkit-flows artifacts list --kind training_workspace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training artifact, the run that made it, and the config version that run used."""

    artifact: ArtifactRef
    run: RunFact
    config: ModelConfig


def find_training(database: Database, model: ModelContract, reference: str, *, deleted_too: bool = False) -> Training:
    """Find a trained model, and check that `model` can predict with it.

    Args:
        database: To read.
        model: That is to predict.
        reference: The id of a trained model, or `NAME@latest`, `NAME@ALIAS`, `NAME@NUMBER`.
        deleted_too: Whether it may be in the trash: for its config to be read, not its bytes.

    Raises:
        ValidationFailed: It cannot; the diagnostic's code says why: `training_artifact_not_found`,
            `training_artifact_deleted`, `training_artifact_failed`, `invalid_training_artifact`, `unknown_alias` or
            `config_not_found`.
    """
    try:
        artifact = (get_artifact if deleted_too else get_usable)(database, resolve_reference(database, reference))
    except (ArtifactNotFound, ArtifactDeleted, InvalidId) as error:
        raise _refusal(_CODES[type(error)], f"{error}") from error
    if artifact.kind != "training_workspace":
        raise _refusal(
            "invalid_training_artifact", f"{artifact.id} is a {artifact.kind}, not a trained model. {_REMEDY}"
        )
    if artifact.status == "failed":
        raise _refusal(
            "training_artifact_failed",
            f"{artifact.id} is what a failed training left, for inspection only. Train again. {_REMEDY}",
        )
    run = producer(database, artifact.id)
    if run is None or run.model != model.name:
        owner = f"the model {run.model}" if run else "no recorded run"
        raise _refusal(
            "invalid_training_artifact", f"{artifact.id} was trained by {owner}, not by {model.name}. {_REMEDY}"
        )
    if run.config is None:
        raise _refusal("config_not_found", f"No config version is recorded for the training run {run.id}.")
    try:
        config = restore_config(run.config, _config_type(model))
    except InvalidConfig as error:
        raise _refusal("invalid_config", str(error)) from error
    return Training(artifact=artifact, run=run, config=config)


async def load_training(
    database: Database, model: ModelContract, artifact_id: str, *, deleted_too: bool = False
) -> Training:
    """Find a trained model, as `find_training` does, and give its config the secret values it was trained with.

    Raises:
        ValidationFailed: As `find_training` raises it, or `invalid_config`: the secret values are gone.
    """
    training = await asyncio.to_thread(find_training, database, model, artifact_id, deleted_too=deleted_too)
    assert training.run.config is not None
    try:
        config = await restore_secrets(training.config, training.run.config)
    except InvalidConfig as error:
        raise _refusal("invalid_config", str(error)) from error
    return replace(training, config=config)


def resolve_reference(database: Database, reference: str) -> str:
    """The id of the trained model that `NAME@latest`, `NAME@champion` or `NAME@3` names now; an id as it is.

    Raises:
        ValidationFailed: There is no such alias or version, or no model of that name has been trained.
    """
    name, at, alias = reference.strip().partition("@")
    if not at:
        return reference
    if alias != LATEST:
        try:
            return find_version(database, name, alias).artifact_id
        except RegistryError as error:
            advice = f"{reference} names no version. Write {name}@{LATEST} for the newest training."
            raise _refusal("unknown_alias", f"{advice} {error}") from error
    run = latest_training(database, name)
    if run is None:
        raise _refusal(
            "training_artifact_not_found",
            f"{reference}: no training of a model {name!r} has completed, or all trained models are in the trash. "
            f"Train it first. {_REMEDY}",
        )
    return run.output("model").id


def _config_type(model: ModelContract) -> type[ModelConfig]:
    assert issubclass(model.config, ModelConfig)
    return model.config


def _refusal(code: str, message: str) -> ValidationFailed:
    return ValidationFailed([Diagnostic.error(code, message, "model")])
