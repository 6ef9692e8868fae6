"""Run an example as its README tells it: make data, train, predict, ask where the forecast came from.

Usage: python examples/story.py EXAMPLE FOLDER     (such as: dengue_forecast demo)
Everything is written below FOLDER, the Prefect server's files too.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("chapkit-flows")


def show(arguments: Sequence[object]) -> list[str]:
    """Print a command as one would type it, and return it as the system wants it."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ chapkit-flows {shlex.join(words)}", flush=True)
    return [str(COMMAND), *words]


def run(*arguments: object, environment: dict[str, str]) -> None:
    """Show a command and what it prints."""
    subprocess.run(show(arguments), check=True, env=environment)


def make(*arguments: object, environment: dict[str, str]) -> str:
    """Show a command and what it prints, and return the id in it: that of what it made."""
    done = subprocess.run(show(arguments), check=True, env=environment, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    return re.findall(r"\b[0-9A-Z]{26}\b", done.stdout)[0]


def main(example: str, folder: Path) -> None:
    """Tell the whole story of one example."""
    name = {"dengue_forecast": "dengue", "shell_model": "seasonal"}[example]
    model = os.path.relpath(EXAMPLES / example / "model.py") + f":{name}"
    data = folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "PREFECT_HOME": str((folder / "prefect").absolute()),
        "PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME": str((folder / "home").absolute()),
    }
    environment.pop("PREFECT_API_URL", None)
    # Told again, the story replaces what it made before.
    run("sample-data", model, "--out", data, "--force", environment=environment)
    given = ("--data", data / "training.csv", "--geo", data / "geo.json")
    trained = make("train", model, *given, environment=environment)
    given = ("--historic", data / "historic.csv", "--future", data / "future.csv", "--geo", data / "geo.json")
    out = folder / "forecast.csv"
    predicted = make("predict", trained, *given, "--out", out, "--force", environment=environment)
    run("lineage", predicted, "--up", environment=environment)
    print(f"\nThe forecast is in {out}. What made it is kept in {folder / 'home'}; to look further:")
    print(f"  export PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_HOME={shlex.quote(str(folder / 'home'))}")
    print(f"  chapkit-flows runs list\n  chapkit-flows artifacts show {predicted}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
