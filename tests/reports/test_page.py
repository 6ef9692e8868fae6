"""Pages that stand on their own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from finished import run_with
from playwright.sync_api import Request, sync_playwright

from chapkit_flows.lineage.assignments import ModelVersion
from chapkit_flows.refs import now
from chapkit_flows.reports.page import PageContent, limits, write_page
from chapkit_flows.testing.facts import make_config

EVIL = '"><script src="https://evil.example/x.js"></script><img src="https://evil.example/x.png">'
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def test_free_text_is_escaped() -> None:
    """A value that looks like HTML is shown, not run."""
    page = write_page(PageContent(run=run_with(config=make_config(label=EVIL), error=EVIL, model=EVIL)))
    assert "<script" not in page
    assert page.count("&lt;script") >= 3
    assert [] == re.findall(r'<(?:img|link|script)[^>]*(?:src|href)="(?!data:)', page)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"skill_persistence": -0.1}, "It is not better than persistence by CRPS."),
        ({"coverage_90": 0.5}, "Its 90 % intervals hold 50% of the truths."),
        ({"failed_folds": 2.0}, "2 folds of its backtest failed."),
    ],
)
def test_limits(metrics: dict[str, float], expected: str) -> None:
    """A page says what its scores say against the model."""
    run = run_with(metrics=metrics)
    assert expected in limits(PageContent(run=run, backtest=run))


def test_untried_model_says_so() -> None:
    """A page of a model that was never backtested does not look as if it were good."""
    assert "how good it is is not known" in limits(PageContent(run=run_with()))[0]


def test_model_card_has_all_its_parts() -> None:
    """A card tells who promoted the version, its data, config, code and scores, and what speaks against it."""
    run = run_with()
    model = run.output("model")
    version = ModelVersion(
        model="rain", number=3, artifact_id=model.id, digest=model.digest, registered_at=now(), registered_by="ana"
    )
    trial = run_with(flow="backtest", metrics={"crps": 12.5, "skill_persistence": 0.25, "coverage_90": 0.9, "folds": 4})
    page = write_page(PageContent(run=run, version=version, backtest=trial))
    assert "<h1>Model card: rain@3</h1>" in page
    sections = re.findall("<h2>(.*?)</h2>", page)
    assert {"Who registered and promoted it", "Data", "Config", "Code", "Scores", "Limits"} <= set(sections)
    for words in ("registered by ana", "12.5", "+25.0%", run.inputs[0].artifact.digest, "n_lags", "5f3c2ab", "4 folds"):
        assert words in page


def test_page_asks_for_nothing(tmp_path: Path) -> None:
    """A browser that opens a page sends no request but for the file, whatever is written in it."""
    file = tmp_path / "report.html"
    file.write_text(write_page(PageContent(run=run_with(config=make_config(label=EVIL)), pictures={EVIL: b"png"})))
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page()
        page.on("request", note)
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        assert "rain: train" == page.inner_text("h1")
        browser.close()
    assert [file.as_uri()] == [url for url in asked if not url.startswith("data:")]
