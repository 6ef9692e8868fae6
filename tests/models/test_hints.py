"""What a model says that a fold of it needs."""

from __future__ import annotations

from typing import Any

import pytest

from chapkit_flows import FunctionalModelRunner, Model, ModelConfig
from chapkit_flows.errors import InvalidModel
from chapkit_flows.models.hints import ResourceHints, total_memory


class PlainConfig(ModelConfig):
    """No settings."""


def make(resources: Any) -> Model:
    return Model(
        name="hinted", config=PlainConfig, runner=FunctionalModelRunner(lambda: 0, lambda: 0), resources=resources
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ResourceHints()),
        ({"cpus": 2, "memory": "4 GB", "gpus": 1}, ResourceHints(cpus=2, memory=4 * 10**9, gpus=1)),
        ({"cpus": 0.5, "memory": "1.5GiB", "gpus": 0.25}, ResourceHints(cpus=0.5, memory=3 * 2**29, gpus=0.25)),
        ({"memory": 1024}, ResourceHints(memory=1024)),
    ],
)
def test_hints_are_read(given: dict[str, Any], expected: ResourceHints) -> None:
    """Numbers stay, and amounts of memory are bytes or have a unit."""
    assert expected == make(given).hints


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cpu": 2}, "some of cpus, memory, gpus"),
        ("2", "write a mapping"),
        ({"cpus": 0}, r"resources\['cpus'\] is 0; write 0.5, or 1, 2"),
        ({"cpus": 1.5}, r"resources\['cpus'\] is 1.5"),
        ({"cpus": True}, r"resources\['cpus'\] is True"),
        ({"cpus": float("nan")}, r"resources\['cpus'\] is nan"),
        ({"gpus": -1}, r"resources\['gpus'\] is -1"),
        ({"memory": "4 apples"}, 'a number of bytes, or a text such as "4 GB"'),
        ({"memory": 0}, r"resources\['memory'\] is 0"),
    ],
)
def test_refused_hints(given: Any, words: str) -> None:
    """What no machine can fulfil is refused when the model is made."""
    with pytest.raises(InvalidModel, match=words):
        make(given)


def test_hints_are_no_part_of_what_a_model_promises() -> None:
    """A model that needs more of a machine forecasts the same: no fold is done again."""
    assert make({}).digest == make({"cpus": 2}).digest


@pytest.mark.parametrize(
    ("hints", "expected"),
    [
        (ResourceHints(), 4),
        (ResourceHints(cpus=2), 2),
        (ResourceHints(cpus=3), 1),
        (ResourceHints(cpus=8), 1),
        (ResourceHints(cpus=0.5), 8),
        (ResourceHints(memory=total_memory() // 2), 2),
        (ResourceHints(memory=total_memory() * 9), 1),
    ],
)
def test_folds_at_once(hints: ResourceHints, expected: int) -> None:
    """On four processors as many folds run as have enough of them and of memory, and one in any case."""
    assert expected == hints.at_once(4)
