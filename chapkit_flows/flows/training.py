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
    ValidationFailed,
)
from chapkit_flows.lineage.deletions import get_usable
from chapkit_flows.lineage.engine import Database
from chapkit_flows.lineage.facts import RunFact
from chapkit_flows.lineage.query import producer
from chapkit_flows.models.contract import ModelContract
from chapkit_flows.refs import ArtifactRef, Diagnostic

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


def find_training(database: Database, model: ModelContract, artifact_id: str) -> Training:
    """Find the trained model with an id, and check that `model` can predict with it.

    Raises:
        ValidationFailed: It cannot; the diagnostic's code says why: `training_artifact_not_found`,
            `training_artifact_deleted`, `training_artifact_failed`, `invalid_training_artifact` or `config_not_found`.
    """
    try:
        artifact = get_usable(database, artifact_id)
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


async def load_training(database: Database, model: ModelContract, artifact_id: str) -> Training:
    """Find a trained model, as `find_training` does, and give its config the secret values it was trained with.

    Raises:
        ValidationFailed: As `find_training` raises it, or `invalid_config`: the secret values are gone.
    """
    training = await asyncio.to_thread(find_training, database, model, artifact_id)
    assert training.run.config is not None
    try:
        config = await restore_secrets(training.config, training.run.config)
    except InvalidConfig as error:
        raise _refusal("invalid_config", str(error)) from error
    return replace(training, config=config)


def _config_type(model: ModelContract) -> type[ModelConfig]:
    assert issubclass(model.config, ModelConfig)
    return model.config


def _refusal(code: str, message: str) -> ValidationFailed:
    return ValidationFailed([Diagnostic.error(code, message, "model")])
