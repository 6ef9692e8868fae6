"""How good: pure functions over frames."""
