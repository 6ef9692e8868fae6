"""At how many points of which works the tests kill a process, by the lists that those tests go through."""

from __future__ import annotations

import flow_kill_points
import kill_points
import test_killed_flows
import test_killed_store
import test_killed_upkeep
import upkeep_kill_points
from killed_works import MIGRATE, STORE, UPKEEP

# Points may be added. Where one is dropped nothing says any more that the work survives there.
LEAST = {"train": 24, "predict": 35, "delete": 40, "gc": 20, "backup": 20, "restore": 20, "migrate": 20}


def parameters(test: object) -> list[object]:
    """What a test, or a fixture, is parametrised over."""
    (mark,) = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    return list(mark.args[1])


def test_each_work_is_killed_at_its_points() -> None:
    """Train, predict, delete, gc, backup, restore and migrate are killed at no fewer points than they were."""
    points = {work: len(flow_kill_points.points_of(work)) for work in ("train", "predict")}
    points |= {work: UPKEEP[work] for work in ("gc", "backup", "restore")}
    points |= {"delete": UPKEEP["delete"] + UPKEEP["delete_many"], "migrate": MIGRATE}
    assert points.keys() == LEAST.keys()
    assert {} == {work: count for work, count in points.items() if count < LEAST[work]}
    assert 30 <= sum(points.values())


def test_every_list_is_gone_through() -> None:
    """The tests that kill are parametrised over all works of the lists, and the drivers know all of them."""
    assert list(UPKEEP.items()) == parameters(test_killed_upkeep.test_killed_at_every_step)
    assert list(STORE.items()) == parameters(test_killed_store.test_killed_at_every_step)
    assert upkeep_kill_points.WORKS.keys() == UPKEEP.keys() == test_killed_upkeep.CHECKS.keys()
    assert kill_points.WORKS.keys() == STORE.keys()
    assert flow_kill_points.CALLS.keys() == set(test_killed_flows.WORKS)
