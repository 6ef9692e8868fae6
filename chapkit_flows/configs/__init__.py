"""What to run: config blocks, the YAML documents they are applied from, and their versions."""

from chapkit_flows.configs.block import ModelConfig

__all__ = ["ModelConfig"]
