"""Prefect's own pages, in both of its UIs, in a real Chromium, used as a person does.

Pick a config, run, watch, look at what was made.

Screenshots are kept in the folder that SCREENSHOTS names, else in pytest's temporary one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest
from playwright.sync_api import Locator, Page, Request, expect, sync_playwright
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from server_api import eventually
from sites import Site, run_program, script

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
BOTH = pytest.mark.parametrize("ui", ["", "v2/"], ids=["first", "second"])
# Prefect's second UI counts its users there.
PREFECTS_OWN = "amplitude.com"
AUTOMATIONS = [
    "dead runs",
    "no new forecast",
    "notify on a better model",
    "notify on failure",
    "retrain dengue when its data changes",
    "score dengue forecasts when data changes",
]
LIVE = """
import shlex, sys
from chapkit_flows import Model, ModelConfig, ShellModelRunner

class LiveConfig(ModelConfig):
    \"\"\"Settings of a script that waits.\"\"\"

python = shlex.quote(sys.executable)
live = Model(
    name="live",
    config=LiveConfig,
    runner=ShellModelRunner(train_command=f"{python} wait.py", predict_command=f"{python} wait.py {{output_file}}"),
)
"""
WAIT = """
import time
from pathlib import Path

print("chain 2 of 4 begins", flush=True)
print("progress: 40 % epoch 4 of 10", flush=True)
while not Path(GO).exists():
    time.sleep(0.1)
Path("fitted.txt").write_text("fitted")
"""
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@dataclass(frozen=True, kw_only=True)
class Window:
    """A browser window on the Prefect server of a site."""

    page: Page
    site: Site
    pictures: Path
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def root(self) -> str:
        """Where the pages of the server begin."""
        return str(self.site.api.base_url).rstrip("/").removesuffix("/api")

    def listen(self, request: Request) -> None:
        """Remember what a page loads: the address of the page, and of what it loads."""
        # Of a request for the page itself there is no page yet.
        if not request.is_navigation_request():
            self.requests.append((request.frame.url, request.url))

    def open(self, path: str) -> Page:
        """Go to a page of the UI, and wait until it stands still."""
        self.page.goto(f"{self.root}/{path}")
        self.page.wait_for_load_state("networkidle")
        return self.page

    def keep(self, name: str) -> None:
        """Take a screenshot."""
        self.page.screenshot(path=self.pictures / f"{name}.png", full_page=True)

    def open_form(self, deployment: str, *, ui: str = "") -> Page:
        """From the page of a deployment to the form of a custom run."""
        page = self.open(f"{ui}deployments/deployment/{self.site.read(f'/deployments/name/{deployment}')['id']}")
        page.get_by_role("button", name="Run", exact=True).click()
        page.get_by_text("Custom run").click()
        page.get_by_text("Enforce Parameter Schema" if ui else "Validate parameters").wait_for()
        page.wait_for_load_state("networkidle")
        return page

    def pick(self, config: str) -> None:
        """Choose a saved config in the drop-down of the first UI's form."""
        # The list opens by mouse only in a window that has the focus.
        self.page.locator(".block-documents-select button").focus()
        self.page.keyboard.press("ArrowDown")
        options = self.page.locator(".p-select-option")
        expect(options).to_have_text(["None", "default", "long-memory"])
        options.filter(has_text=config).click()

    def submit(self) -> str:
        """Submit the form; the id of the run that it starts."""
        # A busy server on SQLite answers 503, to which a person clicks again.
        busy = httpx.codes.SERVICE_UNAVAILABLE
        while True:
            with self.page.expect_response(
                lambda response: response.url.endswith("/create_flow_run") or response.status == busy
            ) as answer:
                self.page.get_by_role("button", name="Submit").click()
            if answer.value.status != busy:
                return str(answer.value.json()["id"])

    def watch(self, flow_run_id: str, *, state: str = "Completed", ui: str = "") -> Page:
        """Stay on the page of a run until it says that it has ended so."""
        page = self.open(f"{ui}runs/flow-run/{flow_run_id}")
        page.get_by_text(state, exact=True).first.wait_for()
        self.site.wait_for(flow_run_id)
        return page

    def open_artifact(self, flow_run_id: str, *, ui: str = "") -> Page:
        """From the page of a run, by its tab of artifacts, to the page of the one that it made."""
        self.page.get_by_text("Artifacts", exact=True).first.click()
        (artifact,) = [made for made in self.site.artifacts(flow_run_id) if made["key"]]
        expect(self.page.get_by_text(artifact["key"]).first).to_be_visible()
        return self.open(f"{ui}artifacts/artifact/{artifact['id']}")

    def follow(self, link: Locator) -> str:
        """Where a link leads: the first UI opens another window."""
        before = self.page.url
        if link.get_attribute("target") == "_blank":
            with self.page.expect_popup() as opened:
                link.click()
            target = opened.value.url
            opened.value.close()
            return target
        link.click()
        self.page.wait_for_url(lambda url: url != before)
        return self.page.url


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
        window = Window(page=page, site=site, pictures=pictures)
        # A bound method of a frozen value cannot be listened to: Playwright notes it there.
        page.on("request", lambda request: window.listen(request))
        yield window
        browser.close()


@pytest.fixture(scope="module")
def trained(window: Window) -> Any:
    """A training started from the form, with a config picked from the drop-down."""
    page = window.open_form("dengue-train/train")
    for text in ("The settings to train with", "Where the training data is", "Where the polygons are"):
        expect(page.get_by_text(text)).to_be_visible()
    window.pick("long-memory")
    data = page.locator("textarea").first
    path = data.input_value()
    data.fill("")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("'data' is a required property")).to_be_visible()
    window.keep("1 refused in the form")
    data.fill(path)
    return window.submit()


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
    assert f"{window.root}/runs/flow-run/{trained}" == window.follow(link).partition("?")[0]


@pytest.fixture(scope="module")
def started(window: Window, trained: str, live: tuple[str, Path]) -> dict[str, str]:
    """A prediction, a retraining and a backtest started from their forms, one in the second UI; all run at once."""
    site, runs = window.site, {}
    assert "COMPLETED" == site.wait_for(trained)["type"]
    page = window.open_form("dengue-predict/predict")
    page.locator("textarea").first.fill(get_run(site.resources.database, trained).output("model").id)
    runs["predict"] = window.submit()
    page = window.open_form("dengue-retrain/retrain")
    window.pick("long-memory")
    expect(page.get_by_text("Train even if nothing is new")).to_be_visible()
    window.keep("4 the form of a retraining")
    runs["retrain"] = window.submit()
    page = window.open_form("dengue-backtest/backtest", ui="v2/")
    splits = page.locator("input[type=number]").first
    expect(splits).to_have_value("4")
    splits.fill("0")
    page.get_by_role("button", name="Submit").click()
    # The browser itself says so, beside the field.
    assert "Value must be greater than or equal to 1." == splits.evaluate("field => field.validationMessage")
    window.keep("5 refused in the form of the second UI")
    splits.fill("2")
    runs["backtest"] = window.submit()
    return runs


@BOTH
def test_shows_a_prediction(window: Window, trained: str, started: dict[str, str], ui: str) -> None:
    """The id that a training shows predicts: there is a picture, numbers, and a link to the training in the same UI."""
    window.watch(started["predict"], ui=ui)
    page = window.open_artifact(started["predict"], ui=ui)
    _expect_picture(page.locator("img[src^='data:image/png']"), width=300)
    expect(page.get_by_role("columnheader", name="90 % interval")).to_be_visible()
    window.keep(f"6 what the prediction made {ui.strip('/')}")
    link = page.get_by_role("link", name="dengue · long-memory · training.csv").first
    assert f"{window.root}/{ui}runs/flow-run/{trained}" == window.follow(link).partition("?")[0]


def test_shows_that_nothing_is_new(window: Window, started: dict[str, str]) -> None:
    """A retraining on the same data with the same config says in its state that nothing is new."""
    window.watch(started["retrain"], state="NothingNew")
    page = window.open_artifact(started["retrain"])
    for text in ("dengue: nothing new", "Compared", "n_lags = 6"):
        expect(page.get_by_text(text).first).to_be_visible()
    window.keep("7 nothing new")


@BOTH
def test_shows_a_backtest(window: Window, started: dict[str, str], ui: str) -> None:
    """A backtest shows scores, skill, pictures, what to do with them, and from what it was made."""
    window.watch(started["backtest"], ui=ui)
    page = window.open_artifact(started["backtest"], ui=ui)
    scores = get_run(window.site.resources.database, started["backtest"]).output("scores").id
    for text in ("2 folds, 3 periods ahead", "CRPS of log", "Skill against the baselines", "Made from", "Lineage"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_text(f"chapkit-flows artifacts download {scores}").first).to_be_visible()
    pictures = page.locator("img[src^='data:image/png']")
    expect(pictures).to_have_count(2)
    _expect_picture(pictures.first, width=300)
    window.keep(f"8 what the backtest made {ui.strip('/')}")


@pytest.fixture(scope="module")
def live(window: Window, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A training whose script waits, and the file that lets it go on."""
    folder = tmp_path_factory.mktemp("live")
    go = folder.with_suffix(".go")
    (folder / "model.py").write_text(LIVE)
    (folder / "wait.py").write_text(f"GO = {str(go)!r}\n{WAIT}")
    api, site = window.site.api, window.site
    flow = api.post("/flows/", json={"name": "live-train"}).raise_for_status().json()["id"]
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}
    made = api.post(
        "/deployments/",
        json={
            "name": "live",
            "flow_id": flow,
            "entrypoint": "model.py:live.train",
            "work_pool_name": "forecasts",
            "pull_steps": [step],
        },
    )
    data = str(site.folder / "examples/dengue_forecast/data/training.csv")
    run = {
        "parameters": {"config": {}, "data": data},
        "job_variables": {"env": {"PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_PROGRESS_SECONDS": "1"}},
    }
    answer = api.post(f"/deployments/{made.raise_for_status().json()['id']}/create_flow_run", json=run)
    return str(answer.raise_for_status().json()["id"]), go


def test_shows_what_a_script_does_while_it_runs(window: Window, live: tuple[str, Path]) -> None:
    """Lines of a script, and how far it says it has come, are on the run's page while it runs, in both UIs."""
    flow_run_id, go = live
    for ui in ("", "v2/"):
        page = window.open(f"{ui}runs/flow-run/{flow_run_id}")
        expect(page.get_by_text("chain 2 of 4 begins").first).to_be_visible()
        page.get_by_text("Artifacts", exact=True).first.click()
        bar = page.get_by_text(re.compile(r"Fitting live for \d+ s; epoch 4 of 10")).first
        seen = bar.inner_text()

        def look(page: Page = page, bar: Locator = bar, is_second: bool = bool(ui)) -> str:
            if is_second:
                page.reload()  # this one shows what there was when it was opened
            return bar.inner_text()

        eventually(look, lambda text, seen=seen: text != seen)
        window.keep(f"9 while it fits {ui.strip('/')}")
    assert "RUNNING" == window.site.read(f"/flow_runs/{flow_run_id}")["state"]["type"]
    go.touch()
    window.page.get_by_text("Completed", exact=True).first.wait_for()


@BOTH
def test_block_types_have_a_picture_without_internet(window: Window, ui: str) -> None:
    """In the catalog of blocks the config types are described and have a picture that the server itself serves."""
    page = window.open(f"{ui}blocks/catalog")
    for name, description in (
        ("Dengue Config", "Settings of the dengue regression."),
        ("Artifact Location", "Where chapkit-flows keeps datasets"),
    ):
        title = page.get_by_text(name, exact=True).first
        title.scroll_into_view_if_needed()
        card = title.locator("xpath=ancestor::*[contains(., 'Details')][1]")
        expect(card.get_by_text(description)).to_be_visible()
        # Other types have a picture from the internet, which is broken here.
        _expect_picture(card.locator("img").first, width=0)
        assert str(card.locator("img").first.get_attribute("src")).startswith(window.root)
    window.keep(f"10 the catalog {ui.strip('/')}")


@BOTH
def test_config_is_created_in_a_form(window: Window, ui: str) -> None:
    """The form of a new config has a title, a description and a default for each field, the model's own ones first."""
    page = window.open(f"{ui}blocks/catalog/dengue-config/create")
    _expect_picture(page.locator("main img, .block-type-card img, img").first, width=0)
    own = page.get_by_text("How many past periods of weather count.")
    shared = page.get_by_text("Columns to use as covariates beside those that the model requires.")
    expect(own).to_be_visible()
    expect(page.get_by_text("N Lags (Optional)")).to_be_visible()
    expect(page.locator("input[type=number]").first).to_have_value("3")
    above, below = own.bounding_box(), shared.bounding_box()
    assert above is not None
    assert below is not None
    assert above["y"] < below["y"]
    window.keep(f"11 a new config {ui.strip('/')}")


@pytest.fixture(scope="module")
def automations(window: Window) -> Iterator[None]:
    """The automations that ship, applied; gone again afterwards."""
    site = window.site
    CustomWebhookNotificationBlock(name="alerts", url="http://127.0.0.1:9/").save(
        "alerts",
        overwrite=True,
        _sync=True,  # Playwright has a loop running
    )
    command = [script("chapkit-flows"), "automations", "apply", "deployments/automations/"]
    run_program(command, folder=site.folder, environment=site.environment)
    yield
    for made in site.api.post("/automations/filter", json={}).raise_for_status().json():
        site.api.delete(f"/automations/{made['id']}").raise_for_status()


@BOTH
def test_automations_are_listed_and_on(window: Window, automations: None, ui: str) -> None:
    """The page of automations has ours, described and switched on."""
    page = window.open(f"{ui}automations")
    for name in AUTOMATIONS:
        expect(page.get_by_text(f"chapkit: {name}").first).to_be_visible()
    expect(page.get_by_text("Marks runs without heartbeats as crashed.")).to_be_visible()
    switches = page.get_by_role("switch") if ui else page.locator(".p-toggle__input, input[type=checkbox]")
    expect(switches).to_have_count(len(AUTOMATIONS))
    assert all(switches.nth(number).is_checked() for number in range(len(AUTOMATIONS)))
    window.keep(f"12 the automations {ui.strip('/')}")


@pytest.mark.usefixtures("started")
def test_nothing_of_ours_comes_from_elsewhere(window: Window) -> None:
    """No page that shows something of ours has asked another host for anything, but those that Prefect's UI asks."""
    # The catalog shows the pictures of all other block types, too.
    loaded = [(urlparse(page).path, urlparse(what)) for page, what in window.requests]
    asked = [(page, str(what.hostname)) for page, what in loaded if what.scheme in ("http", "https")]
    asked = [(page, host) for page, host in asked if not page.endswith("/catalog")]
    for kind in (
        "/runs/flow-run/",
        "/artifacts/artifact/",
        "/deployments/deployment/",
        "/blocks/catalog/dengue-config",
    ):
        assert {"", "/v2"} == {page.partition(kind)[0] for page, _ in asked if kind in page}
    here = str(urlparse(window.root).hostname)
    assert {} == {page: host for page, host in asked if host != here and not host.endswith(PREFECTS_OWN)}


def _expect_picture(picture: Locator, *, width: int) -> None:
    """It is there, has loaded, and is wider than so many pixels."""
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > width
