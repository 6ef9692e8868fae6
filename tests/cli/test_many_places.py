"""What the commands show of a model that is trained for each of many places."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from command_line import MODELS, CommandLine, write_tables

PLACES = 14


@pytest.mark.usefixtures("server", "home")
def test_all_places_are_shown(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast of more places than one picture holds is shown whole in its report; a version says what it is."""
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
    tables = write_tables(tmp_path / "tables", places=PLACES)
    model = f"{MODELS.with_name('places.py')}:placed_function"
    trained = cli("train", model, "--data", tables["training"], "--json").json["artifact_id"]
    ahead = ("--historic", tables["historic"], "--future", tables["future"])
    run = cli("predict", trained, *ahead, "--json").json["run_id"]
    page = tmp_path / "forecast.html"
    assert 0 == cli("report", run, "--out", page).code
    text = page.read_text(encoding="utf-8")
    places = sorted(pd.read_csv(tables["future"])["location"].unique())
    titles = re.findall(r"<h2>Forecast: (\S+) to (\S+)</h2>\n<img", text)
    assert [(places[0], places[11]), (places[12], places[13])] == titles

    cli("models", "register", trained)
    shown = cli("models", "show", "placed_function@1").out
    assert re.search(r"author +An office", shown)
    card = tmp_path / "card.html"
    cli("report", "placed_function@1", "--out", card)
    assert "<th>author</th><td>An office</td>" in card.read_text(encoding="utf-8")
    folder = tmp_path / "models"
    assert 0 == cli("artifacts", "download", trained, "--out", folder).code
    assert {"places.json", *(f"{number:05d}-{place}" for number, place in enumerate(places, 1))} == {
        path.name for path in folder.iterdir()
    }
