"""What to run: config blocks, the YAML documents they are applied from, and their versions; and where to keep it."""

from chapkit_flows.configs.block import ModelConfig
from chapkit_flows.configs.location import ArtifactLocation

__all__ = ["ArtifactLocation", "ModelConfig"]
