"""What a run shows in the Prefect UI, as markdown that both UIs read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from prefect.settings import PREFECT_UI_URL, temporary_settings

from chapkit_flows.flows.summary import Forecast, describe_diagnostics, diagnostic_rows, summarise
from chapkit_flows.lineage.facts import Edge, Newer, RunFact
from chapkit_flows.refs import ArtifactRef, CodeVersion, ConfigRef, Diagnostic, digest_of

UI = "http://prefect.example:4200"
TRAINING, PREDICTION = "01JD3Q0Z8V6Y3N5W2T7R9K4M1B", "01JD3Q0Z8V6Y3N5W2T7R9K4M1C"
MODEL, FORECAST = "01JD3Q0Z8V6Y3N5W2T7R9K4M1D", "01JD3Q0Z8V6Y3N5W2T7R9K4M1E"
PLOT = "01JD3Q0Z8V6Y3N5W2T7R9K4M1G"


def _edge(role: str, kind: Any, artifact_id: str, **metadata: Any) -> Edge:
    digest = digest_of(artifact_id.encode())
    artifact = ArtifactRef(id=artifact_id, kind=kind, digest=digest, size=1, media_type="text/csv", metadata=metadata)
    return Edge(role=role, artifact=artifact)


def _short(text: str) -> str:
    return digest_of(text.encode()).removeprefix("sha256:")[:12]


def _run(run_id: str, flow: str, **facts: Any) -> RunFact:
    return RunFact(
        id=run_id,
        flow=flow,
        model="rain",
        entrypoint="rain.py:rain",
        flow_run_id=f"of-{flow}",
        flow_run_name=f"rain · {flow}",
        status="completed",
        config=ConfigRef(digest=digest_of(b"config"), block_type="rain-config", name="wet", content={"label": "a|b"}),
        code=CodeVersion(
            digest=digest_of(b"code"),
            git_commit="0123456789abcdef",
            dirty=True,
            patch_digest=None,
            source_digest=None,
            python="3.11.7",
            packages={"numpy": "2.4.6"},
        ),
        **facts,
    )


DATA = _edge("data", "dataset", "01JD3Q0Z8V6Y3N5W2T7R9K4M1F", name="training.csv", uri="/data/training.csv")


@pytest.fixture
def training() -> RunFact:
    """A training from training.csv."""
    return _run(
        TRAINING,
        "train",
        parameters={"data": "/data/training.csv"},
        inputs=(DATA,),
        outputs=(_edge("model", "training_workspace", MODEL),),
    )


@pytest.fixture
def prediction() -> RunFact:
    """A prediction from the same bytes under another name."""
    return _run(
        PREDICTION,
        "predict",
        parameters={"model": MODEL, "historic": "s3://bucket/historic.csv?version=2"},
        inputs=(Edge(role="historic", artifact=DATA.artifact), _edge("model", "training_workspace", MODEL)),
        outputs=(_edge("plot", "plot", PLOT, name="forecast.png"), _edge("prediction", "prediction", FORECAST)),
    )


def _forecast(places: int, shown: int, *, is_point: bool = False) -> Forecast:
    keys = [(f"place|{place}", f"2020-{month:02d}") for place in range(shown) for month in (1, 2)]
    numbers = pd.DataFrame(keys, columns=["location", "time_period"]).assign(q05=0.001234, median=12.34, q95=12345.6)
    return Forecast(picture=b"png", numbers=numbers, places=places, is_point=is_point)


def _part(text: str, title: str) -> str:
    return text.split(f"### {title}\n\n")[1].split("\n\n")[0]


def test_lineage_is_a_list(training: RunFact, prediction: RunFact) -> None:
    """What made what is a nested list, which also the UI shows that draws no diagrams."""
    with temporary_settings({PREFECT_UI_URL: UI}):
        text = summarise(prediction, parent=training)
    assert [
        f"- **Prediction** `{FORECAST}` · `{_short(FORECAST)}`",
        f"  - made by the run **predict** `{PREDICTION}` · [rain · predict](../../runs/flow-run/of-predict)",
        f"    - from **Trained model** `{MODEL}` · `{_short(MODEL)}`",
        f"      - made by the run **train** `{TRAINING}` · [rain · train](../../runs/flow-run/of-train)",
        f"        - from **Training data** `training.csv` · `{_short(DATA.artifact.id)}`",
        f"        - with **Config** `wet` · `{_short('config')}`",
        "        - with **Code** commit `0123456789ab`, with local changes",
        f"    - from **Historic data** `historic.csv` · `{_short(DATA.artifact.id)}`",
        f"    - with **Config** `wet` · `{_short('config')}`",
        "    - with **Code** commit `0123456789ab`, with local changes",
        f"  - together with **Plot** `forecast.png` · `{_short(PLOT)}`",
    ] == _part(text, "Lineage").splitlines()


def test_diagram_is_folded_away(training: RunFact, prediction: RunFact) -> None:
    """The diagram is one HTML block without an empty line, as the first UI ends a folded part at that."""
    (block,) = [part for part in summarise(prediction, parent=training).split("\n\n") if "flowchart" in part]
    assert block.startswith("<details><summary>Diagram")
    assert block.endswith("</code></pre></details>")
    assert '<code class="language-mermaid">flowchart LR' in block
    assert "run --&gt; out1[&quot;Prediction&lt;br&gt;" in block


def test_data_has_the_name_by_which_each_run_read_it(training: RunFact, prediction: RunFact) -> None:
    """Equal bytes under two names appear as each run read them, in the diagram too."""
    text = summarise(prediction, parent=training)
    assert "[&quot;Historic data&lt;br&gt;historic.csv&quot;] --&gt; run" in text
    assert "[&quot;Training data&lt;br&gt;training.csv&quot;] --&gt; parent" in text


def test_artifact_uri_shows_the_name_of_the_dataset(prediction: RunFact) -> None:
    """Data that a run read by `artifact://` has the name under which it was ingested."""
    uri = f"artifact://{DATA.artifact.id}"
    assert "training.csv" == replace(prediction, parameters={"historic": uri}).name_of(prediction.inputs[0])


def test_link_has_no_backslash_in_a_name_of_a_file(training: RunFact) -> None:
    """The first UI shows a backslash in the text of a link as it is."""
    with temporary_settings({PREFECT_UI_URL: UI}):
        text = summarise(replace(training, flow_run_name="rain · laos_subset.csv"))
    assert "[rain · laos_subset.csv](../../runs" in text


def test_rules_of_a_config_are_named(training: RunFact) -> None:
    """The rules of a config, which would fill the page, appear by their codes."""
    assert training.config is not None
    rules = [{"code": "few_lags", "check": "n_lags < 3"}, {"code": "known", "check": "n_lags > 0"}]
    config = replace(training.config, content={"validation_rules": rules})
    assert "`validation_rules = few_lags, known`" in summarise(replace(training, config=config))


def test_facts_table_has_a_head(training: RunFact) -> None:
    """The table of facts says what its columns hold, and a bar in a value does not end a cell."""
    lines = _part(summarise(training), "Made from").splitlines()
    assert ["| What | Which |", "| --- | --- |"] == lines[:2]
    assert f"| Config | `wet`, version `{_short('config')}`<br>`label = a\\|b` |" in lines


@pytest.mark.parametrize(
    ("label", "expected"),
    [("<b>*x*", "`label = <b>*x*`"), ("a`b", "`` label = a`b ``"), ("a\nb", "`label = a b`")],
)
def test_values_are_no_markup(training: RunFact, label: str, expected: str) -> None:
    """A value is shown as it is, whatever it holds."""
    assert training.config is not None
    shown = replace(training, config=replace(training.config, content={"label": label}))
    assert expected in _part(summarise(shown), "Made from")


def test_names_of_runs_are_no_markup(training: RunFact) -> None:
    """The name of a run may hold what ends a link."""
    with temporary_settings({PREFECT_UI_URL: UI}):
        text = summarise(replace(training, flow_run_name="a_b](c) <d>"))
    assert r"[a_b\](c) \<d\>](../../runs/flow-run/of-train)" in text


def test_stale_input_is_named_first(prediction: RunFact) -> None:
    """An input that is stale is named under the title, with what has become newer, as no markup."""
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    newer = Newer(uri="s3://b/a|b_`c.csv", dataset=DATA.artifact.id, newer="01JD3Q0Z8V6Y3N5W2T7R9K4M1H", read_at=moment)
    title, line, *_ = summarise(prediction, stale={MODEL: [newer]}).split("\n\n")
    assert "## rain: predicted" == title
    assert line.startswith(f"**Stale:** trained model `{MODEL}`. `` s3://b/a|b_`c.csv `` has brought newer data, ")
    assert line.endswith("`01JD3Q0Z8V6Y3N5W2T7R9K4M1H`, on 2026-01-31 12:00 UTC.")
    assert "**Stale:**" not in summarise(prediction)


def test_training_says_how_to_predict(training: RunFact) -> None:
    """The next step after a training is told for the UI and for the command line."""
    with temporary_settings({PREFECT_UI_URL: UI}):
        text = summarise(training)
    assert "[Deployments](../../deployments) → the deployment of the flow `rain-predict` → **Run**" in text
    assert f"chapkit-flows predict {MODEL}" in text


def test_prediction_shows_numbers(prediction: RunFact) -> None:
    """A forecast is shown as numbers: the median and the 90 % interval of each place and period."""
    text = summarise(prediction, forecast=_forecast(2, 2))
    assert "![Forecast by place: median, 50 and 90 % intervals](data:image/png;base64,cG5n)" in text
    assert "| Place | Period | Median | 90 % interval |\n| --- | --- | --- | --- |\n| place\\|0 | 2020-01 | " in text
    assert "| place\\|1 | 2020-02 | 12.3 | 0.00123 to 12346 |" in text
    assert "in numbers" not in text


def test_many_numbers_are_folded_away(prediction: RunFact) -> None:
    """More than 20 rows open on a click, and say of how many places they are."""
    text = summarise(prediction, forecast=_forecast(30, 12))
    (block,) = [part for part in text.split("\n\n") if "in numbers" in part]
    assert "Shown: the first 12 of 30 places. All of them are in the table that the command above downloads" in text
    assert block.startswith("<details><summary>Forecast of the first 12 of 30 places in numbers: 24 rows</summary>")
    assert "<td>place|11</td><td>2020-02</td><td>12.3</td><td>0.00123 to 12346</td>" in block


def test_single_number_has_no_interval(prediction: RunFact) -> None:
    """A model that gives one number per place and period has no interval to show."""
    text = summarise(prediction, forecast=_forecast(1, 1, is_point=True))
    assert "| Place | Period | Forecast |" in text
    assert "interval" not in text


def test_findings_can_be_read_whole() -> None:
    """The messages stand above their table, where they are not cut off, with nothing in them taken for markup."""
    found = [Diagnostic.error("wrong", "Line 2 has '*many*'.\nWrite a number.", "data.cases")]
    found += [Diagnostic.warning("odd", f"Finding {number}.") for number in range(22)]
    lines = describe_diagnostics(found).splitlines()
    assert "Validation found 1 error, 22 warnings:" == lines[0]
    assert r"- **error** in `data.cases`: Line 2 has '\*many\*'. Write a number." == lines[2]
    assert "- **warning**: Finding 0." == lines[3]
    assert "… and 3 more in the table." == lines[-1]
    assert 23 == len(diagnostic_rows(found))


def test_shows_the_profile_of_each_table(training: RunFact) -> None:
    """Missing values and ranges of each column of what was read stand in a folded table of one line."""
    profile = {
        "rows": 8,
        "places": 2,
        "first": "2020-01",
        "last": "2020-04",
        "columns": ["location", "rain<fall"],
        "missing": {"location": 0.0, "rain<fall": 0.25},
        "ranges": {"rain<fall": [0.5, 1234.0]},
    }
    artifact = replace(DATA.artifact, metadata=profile)
    text = summarise(replace(training, inputs=(Edge(role="data", artifact=artifact),)))
    (line,) = [
        line for line in text.splitlines() if line.startswith("<details><summary>Training data: 8 rows, 2 places")
    ]
    assert "<td>location</td><td>none</td><td></td><td></td>" in line
    assert "<td>rain&lt;fall</td><td>25.0%</td><td>0.5</td><td>1234</td>" in line
