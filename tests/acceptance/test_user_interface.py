"""Prefect's own pages in a real Chromium, used as a person does: pick a config, run, watch, look at what was made.

Screenshots are kept in the folder that SCREENSHOTS names, else in pytest's temporary one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from server_api import eventually
from sites import Site

from chapkit_flows.lineage.query import get_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MILLISECONDS = 120_000
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@dataclass(frozen=True, kw_only=True)
class Window:
    """A browser window on the Prefect server of a site."""

    page: Page
    site: Site
    pictures: Path

    def open(self, path: str) -> Page:
        """Go to a page of the UI, and wait until it stands still."""
        self.page.goto(f"{str(self.site.api.base_url).rstrip('/').removesuffix('/api')}/{path}")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def keep(self, name: str) -> None:
        """Take a screenshot."""
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    def open_form(self, deployment: str) -> Page:
        """From the page of a deployment to the form of a custom run."""
        page = self.open(f"deployments/deployment/{self.site.read(f'/deployments/name/{deployment}')['id']}")
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Custom run").click()
        page.get_by_text("Validate parameters").wait_for()
        page.wait_for_load_state("networkidle")
        return page

    def submit(self, deployment: str) -> str:
        """Submit the form; the id of the run that it starts."""
        found = self.site.read(f"/deployments/name/{deployment}")["id"]
        query = {"deployments": {"id": {"any_": [found]}}, "sort": "EXPECTED_START_TIME_DESC"}

        def ids() -> set[str]:
            runs = self.site.api.post("/flow_runs/filter", json=query).raise_for_status().json()
            return {run["id"] for run in runs}

        before = ids()
        self.page.get_by_role("button", name="Submit").click()
        (new,) = eventually(lambda: ids() - before, bool)
        return new

    def watch(self, flow_run_id: str) -> Page:
        """Stay on the page of a run until it says that it is completed."""
        page = self.open(f"runs/flow-run/{flow_run_id}")
        page.get_by_text("Completed", exact=True).first.wait_for()
        assert "COMPLETED" == self.site.wait_for(flow_run_id)["type"]
        return page

    def open_artifact(self, flow_run_id: str) -> Page:
        """From the page of a run, by its tab of artifacts, to the page of the one that it made."""
        self.page.get_by_text("Artifacts", exact=True).first.click()
        (artifact,) = self.site.artifacts(flow_run_id)
        expect(self.page.get_by_text(artifact["key"]).first).to_be_visible()
        return self.open(f"artifacts/artifact/{artifact['id']}")


@pytest.fixture(scope="module")
def window(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """One window for all: a browser takes seconds to start."""
    folder = os.environ.get("SCREENSHOTS")
    pictures = Path(folder) if folder else tmp_path_factory.mktemp("screenshots")
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        yield Window(page=page, site=site, pictures=pictures)
        browser.close()


@pytest.fixture(scope="module")
def trained(window: Window) -> Any:
    """A training started from the form, with a config picked from the drop-down."""
    page = window.open_form("dengue-train/train")
    for text in ("The settings to train with", "Where the training data is", "Where the polygons are"):
        expect(page.get_by_text(text)).to_be_visible()
    # The list opens by mouse only in a window that has the focus.
    page.locator(".block-documents-select button").focus()
    page.keyboard.press("ArrowDown")
    options = page.locator(".p-select-option")
    expect(options).to_have_text(["None", "default", "long-memory"])
    options.filter(has_text="long-memory").click()
    data = page.locator("textarea").first
    path = data.input_value()
    data.fill("")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("'data' is a required property")).to_be_visible()
    window.keep("1 refused in the form")
    data.fill(path)
    return window.submit("dengue-train/train")


def test_trains_from_the_form(window: Window, trained: str) -> None:
    """A config of the drop-down trains the model; the run's page leads to what it made, from which data and config."""
    page = window.watch(trained)
    expect(page.get_by_text("dengue · long-memory · training.csv").first).to_be_visible()
    window.keep("2 the run")
    page = window.open_artifact(trained)
    for text in ("dengue: trained", "Made from", "n_lags = 6", "Training data: 300 rows, 5 places, 2015-01 to 2019-12"):
        expect(page.get_by_text(text).first).to_be_visible()
    page.get_by_text("Training data: 300 rows").click()
    expect(page.get_by_role("cell", name="mean_temperature")).to_be_visible()
    window.keep("3 what the training made")
    link = page.get_by_role("link", name="dengue · long-memory · training.csv").first
    assert f"/runs/flow-run/{trained}" in str(link.get_attribute("href"))


def test_predicts_from_the_form(window: Window, trained: str) -> None:
    """The id that the training shows predicts; the run's page has the forecast as a picture and in numbers."""
    window.watch(trained)
    run = get_run(window.site.resources.database, trained)
    page = window.open_form("dengue-predict/predict")
    page.locator("textarea").first.fill(run.output("model").id)
    predicted = window.submit("dengue-predict/predict")
    window.watch(predicted)
    page = window.open_artifact(predicted)
    picture = page.locator("img[src^='data:image/png']")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 300
    window.keep("4 what the prediction made")


def test_block_types_have_a_logo_without_internet(window: Window) -> None:
    """In the catalog of blocks the config types are described and have a picture that the server itself serves."""
    page = window.open("blocks/catalog")
    for name in ("Dengue Config", "Artifact Location"):
        title = page.get_by_text(name, exact=True).first
        title.scroll_into_view_if_needed()
        card = title.locator("xpath=ancestor::*[contains(., 'Details')][1]")
        picture = card.locator("img").first
        expect(picture).to_be_visible()
        # Other types have a picture from the internet, which is broken here.
        assert picture.evaluate("image => image.naturalWidth") > 0
    window.keep("5 the catalog")
