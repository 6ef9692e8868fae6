"""The only place that brings the rooms together: train, predict, validate."""
