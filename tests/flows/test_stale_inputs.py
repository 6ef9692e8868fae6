"""What the page of a run in Prefect says of inputs that are stale, and what it costs a run to say so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import model, write_tables
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from chapkit_flows import load_model, open_resources
from chapkit_flows.flows.results import RunResult
from chapkit_flows.lineage import staleness
from chapkit_flows.lineage.query import get_run


def read_page(result: RunResult) -> str:
    """The markdown that a run shows in Prefect."""

    async def read() -> str:
        run = get_run(open_resources().database, result.run_id)
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.flow_run_id]))
        async with get_client() as client:
            (page,) = [one for one in await client.read_artifacts(artifact_filter=of_run) if one.type == "markdown"]
            return str(page.data)

    return asyncio.run(read())


def test_page_says_which_input_is_stale(server: str, home: Path, tmp_path: Path) -> None:
    """A prediction with a model whose data has a newer version says so on its page, and not before."""
    tables = write_tables(tmp_path)
    mean = load_model(model("mean"))
    arguments = str(tables["historic"]), str(tables["future"])
    trained = mean.train(mean.config(), str(tables["training"]))
    assert "**Stale:**" not in read_page(mean.predict(trained.artifact_id, *arguments))
    frame = pd.read_csv(tables["training"])
    frame.iloc[:-1].to_csv(tables["training"], index=False)
    newer = mean.train(mean.config(), str(tables["training"]))
    page = read_page(mean.predict(trained.artifact_id, *arguments))
    newer_data = get_run(open_resources().database, newer.run_id).inputs[0].artifact.id
    assert f"**Stale:** trained model `{trained.artifact_id}`. `{tables['training']}` has brought newer data" in page
    assert newer_data in page
    assert "**Stale:**" not in read_page(newer)


def test_run_that_reads_all_from_uris_asks_nothing(
    server: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run has just read is current: no statement is spent on it."""
    asked: list[Any] = []
    find = staleness.load_past

    def note(session: Any, ids: Any) -> Any:
        asked.append(ids)
        return find(session, ids)

    monkeypatch.setattr(staleness, "load_past", note)
    tables = write_tables(tmp_path)
    mean = load_model(model("mean"))
    trained = mean.train(mean.config(), str(tables["training"]))
    assert asked == []
    mean.predict(trained.artifact_id, str(tables["historic"]), str(tables["future"]))
    assert [[trained.artifact_id]] == asked
