"""By whom: the contract of a model, its runners, and how models are found."""

from chapkit_flows.models.contract import ModelContract
from chapkit_flows.models.discovery import load_model
from chapkit_flows.models.functional import FunctionalModelRunner
from chapkit_flows.models.runner import BaseModelRunner
from chapkit_flows.models.shell import ShellModelRunner, ShellPrediction
from chapkit_flows.models.workspace import Project, Workspace

__all__ = [
    "BaseModelRunner",
    "FunctionalModelRunner",
    "ModelContract",
    "Project",
    "ShellModelRunner",
    "ShellPrediction",
    "Workspace",
    "load_model",
]
