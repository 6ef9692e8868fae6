"""Automations as YAML documents: what is refused, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine

from chapkit_flows.flows.automations import read_automations

SHIPPED = Path(__file__).parents[2] / "deployments/automations"
GOOD = "name: one\ntrigger: {type: event, expect: [x], threshold: 1}\nactions: [{type: do-nothing}]\n"
BAD = {
    "a tag": ("!!python/object:os.system {}", "is not readable"),
    "a tab": ("name:\n\t- one", "is not readable"),
    "not UTF-8": (b"name: \xff", "is not readable"),
    "a list": ("[1]", "an automation is a mapping with the keys actions, name, trigger"),
    "a missing key": ("name: one\nactions: []\n", "missing key 'trigger'"),
    "an unknown key": (GOOD + "aktion: 1\n", "unknown key 'aktion'"),
    "no list of actions": (GOOD.replace("[{type: do-nothing}]", "nothing"), "actions must be a list of mappings"),
    "an unknown action": (GOOD.replace("do-nothing", "explode"), "actions"),
    "an unknown posture": (GOOD.replace("type: event", "type: event, posture: Lazy"), "trigger"),
    "a name without a slash": (GOOD.replace("do-nothing", "run-deployment, deployment: x"), "'x' is no name"),
    "no such deployment": (
        GOOD.replace("do-nothing", "run-deployment, deployment: no/where"),
        "there is no deployment no/where on the server. Deploy it with",
    ),
    "no such block": (
        GOOD.replace("do-nothing", "send-notification, body: x, block: slack-webhook/none"),
        "there is no block slack-webhook/none on the server. Save it",
    ),
    "two of one name": (f"{GOOD}---\n{GOOD}", "'one' stands twice"),
    "nothing": ("# nothing\n", "holds no automations"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(server: str, cli: CommandLine, tmp_path: Path, case: str) -> None:
    """A document that cannot be applied is refused with its file and what is wrong in it."""
    content, message = BAD[case]
    file = tmp_path / "automation.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    ended = cli("automations", "apply", file)
    assert (2, "") == (ended.code, ended.out)
    assert str(file) in ended.err
    assert message in ended.err


def test_shipped_ones_are_documented() -> None:
    """The documentation lists exactly the automations that are shipped."""
    docs = (SHIPPED.parents[1] / "docs/events.md").read_text()
    shipped = {document.file.name for document in read_automations(SHIPPED)}
    assert {name for name in shipped if f"| `{name}` |" in docs} == shipped
    assert docs.count(".yaml` | ") == len(shipped)
