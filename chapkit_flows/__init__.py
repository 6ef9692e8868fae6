"""Train and predict with forecasting models as Prefect flows, and know where every forecast came from."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from chapkit_flows.configs.block import ModelConfig as ModelConfig
    from chapkit_flows.configs.location import ArtifactLocation as ArtifactLocation
    from chapkit_flows.configs.rules import rule as rule
    from chapkit_flows.errors import ChapkitFlowsError as ChapkitFlowsError
    from chapkit_flows.flows.model import Model as Model
    from chapkit_flows.flows.results import PredictResult as PredictResult
    from chapkit_flows.flows.results import TrainResult as TrainResult
    from chapkit_flows.models.discovery import load_model as load_model
    from chapkit_flows.models.functional import FunctionalModelRunner as FunctionalModelRunner
    from chapkit_flows.models.progress import report_progress as report_progress
    from chapkit_flows.models.runner import BaseModelRunner as BaseModelRunner
    from chapkit_flows.models.shell import ShellModelRunner as ShellModelRunner
    from chapkit_flows.models.workspace import Project as Project
    from chapkit_flows.refs import Diagnostic as Diagnostic
    from chapkit_flows.resources import Resources as Resources
    from chapkit_flows.resources import open_resources as open_resources
    from chapkit_flows.settings import ChapkitFlowsSettings as ChapkitFlowsSettings

_HOMES = {
    "ArtifactLocation": "configs.location",
    "BaseModelRunner": "models.runner",
    "ChapkitFlowsError": "errors",
    "ChapkitFlowsSettings": "settings",
    "Diagnostic": "refs",
    "FunctionalModelRunner": "models.functional",
    "Model": "flows.model",
    "ModelConfig": "configs.block",
    "PredictResult": "flows.results",
    "Project": "models.workspace",
    "Resources": "resources",
    "ShellModelRunner": "models.shell",
    "TrainResult": "flows.results",
    "load_model": "models.discovery",
    "open_resources": "resources",
    "report_progress": "models.progress",
    "rule": "configs.rules",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Names load on first use: importing Prefect and pandas takes seconds, which `chapkit-flows --help` must not pay.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
