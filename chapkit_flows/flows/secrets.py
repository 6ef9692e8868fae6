"""The secret values of a run: found at its start, seen by the model's code alone."""

from __future__ import annotations

import traceback

from prefect.logging import get_run_logger

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.secrets import reveal
from chapkit_flows.errors import ValidationFailed
from chapkit_flows.flows.summary import publish_diagnostics
from chapkit_flows.models.masking import Mask


async def with_secrets(model: str, config: ModelConfig) -> ModelConfig:
    """A config whose references are replaced by what they lead to; the same one if it has none.

    Raises:
        ValidationFailed: A reference leads to nothing here; shown as a table in the Prefect UI.
    """
    found = await reveal(config)
    if found.findings:
        await publish_diagnostics(model, found.findings)
        raise ValidationFailed(found.findings)
    return found.config


def describe_failure(name: str, error: Exception, mask: Mask) -> str:
    """What the model's own code raised, and where; secrets masked."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    said = f"{name} failed: {type(error).__name__}: {error}{notes} ({place.filename}, line {place.lineno})."
    return f"{mask(said)} The traceback is in the log of the run."


def log_masked(error: Exception, mask: Mask) -> bool:
    """Log the traceback of what the model's code raised if it repeats a secret, without it; whether it did."""
    whole = "".join(traceback.format_exception(error)) if mask else ""
    masked = mask(whole)
    if masked == whole:
        return False
    get_run_logger().error("%s", masked)
    return True
