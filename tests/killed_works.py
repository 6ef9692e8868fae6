"""At how many points the tests kill each work, at least; trainings and predictions: `acceptance/flow_kill_points.py`.

The tests that kill go through these lists, and fail where they have killed less often.
"""

from __future__ import annotations

STORE = {"put": 20, "tree": 40, "value": 30, "replaced": 8}
UPKEEP = {
    "delete": 20,
    "delete_many": 20,
    "tag_many": 20,
    "say": 20,
    "bring_back": 5,
    "crown": 10,
    "gc": 20,
    "backup": 20,
    "restore": 20,
    "recover": 2,
}
MIGRATE = 20
