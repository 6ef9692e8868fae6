"""How a model is found: by file, by file and name, by the name of an installed one."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.utilities.importtools import load_script_as_module

from chapkit_flows import Model, load_model, open_resources
from chapkit_flows.artifacts.codecs import load
from chapkit_flows.errors import InvalidModel, ModelNotFound
from chapkit_flows.lineage.query import get_artifact

MODEL = """
from chapkit_flows import FunctionalModelRunner, Model, ModelConfig
from {neighbour} import on_train, on_predict

{name} = Model(name="{name}", config=ModelConfig, runner=FunctionalModelRunner(on_train, on_predict))
"""
NEIGHBOUR = """
def on_train(config, data, geo=None): ...
def on_predict(config, model, historic, future, geo=None): ...
"""


@pytest.fixture(autouse=True)
def import_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading a file puts its folder on the import path: taken off again after the test."""
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def write(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """Write a file of models, each importing a neighbour whose module name no other test uses."""

    def write(*models: str, file: str = "model.py") -> Path:
        neighbour = f"neighbour_{abs(hash(request.node.name))}"
        (tmp_path / f"{neighbour}.py").write_text(NEIGHBOUR)
        path = tmp_path / file
        path.write_text("".join(MODEL.format(name=name, neighbour=neighbour) for name in models))
        return path

    return write


def test_file_and_name(write: Callable[..., Path]) -> None:
    """A file and a name give that model; the file finds the modules beside it."""
    file = write("rain", "heat")
    assert ["heat", "rain"] == [load_model(f"{file}:{name}").name for name in ("heat", "rain")]


def test_file_with_one_model(write: Callable[..., Path]) -> None:
    """A file that makes one model needs no name, as text or as path, and may bind it to two names."""
    file = write("rain")
    file.write_text(file.read_text() + "\nmodel = rain\n")
    assert load_model(file) is load_model(str(file)) is load_model(f"{file}:rain") is load_model(f"{file}:model")


def test_file_is_imported_once(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """However a file is written, it is one model, which knows where it stands."""
    file = write("rain")
    monkeypatch.chdir(file.parent)
    model = load_model("model.py:rain")
    assert model is load_model(file.parent / "../" / file.parent.name / "model.py")
    assert f"{file.resolve()}:rain" == model.entrypoint


def test_files_of_one_name_are_two_models(write: Callable[..., Path], tmp_path: Path) -> None:
    """Two projects may both call their file model.py."""
    first = write("rain")
    (tmp_path / "other").mkdir()
    second = write("heat", file="other/model.py")
    assert ["rain", "heat"] == [load_model(first).name, load_model(second).name]


def test_module_of_a_package(tmp_path: Path) -> None:
    """A model in an installed package is found by module and name, and its runs name it so."""
    package = tmp_path / "rain_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "callbacks.py").write_text(NEIGHBOUR)
    (package / "models.py").write_text(MODEL.format(name="rain", neighbour=".callbacks"))
    importlib.invalidate_caches()
    model = load_model("rain_package.models:rain")
    assert "rain_package.models:rain" == model.entrypoint
    assert model is load_model(model.entrypoint)


def test_file_of_a_deployment_is_a_file(write: Callable[..., Path]) -> None:
    """A file that Prefect has loaded, as a worker does, is named by its path: another process can load it."""
    file = write("rain")
    model = load_script_as_module(str(file)).rain
    assert f"{file}:rain" == model.entrypoint
    assert "rain" == load_model(model.entrypoint).name


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{folder}/absent.py", r"There is no file .*absent\.py\. Write the path"),
        ("{folder}/absent.py:rain", r"There is no file .*absent\.py\."),
        ("{folder}", "No model .*: write path/to/file.py:name"),
        ("{folder}/model.py:wind", r"no model named 'wind'\. Models there: .*model\.py:rain, .*model\.py:heat"),
        ("{folder}/model.py:on_train", "no model named 'on_train'"),
        ("{folder}/model.py", r"2 models, not one\. Models there: .*:rain, .*:heat"),
        ("{folder}/model.py:", r"2 models, not one"),
        ("", "No model ''"),
        ("no-such-model", r"No model 'no-such-model': .* \(installed: "),
        ("no_such_package.models:rain", "does not load: ModuleNotFoundError: No module named 'no_such_package'"),
        ("chapkit_flows.baselines:rain", "does not load: AttributeError: .* no attribute 'rain'"),
        ("json:dumps", r"\(json:dumps\) is of type function; it must name a Model"),
    ],
)
def test_unknown_models(write: Callable[..., Path], tmp_path: Path, reference: str, message: str) -> None:
    """What is not there is named, with what is."""
    write("rain", "heat")
    with pytest.raises(ModelNotFound, match=message):
        load_model(reference.format(folder=tmp_path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", r"has 0 models, not one\. Models there: it makes none"),
        ("import no_such_package", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("from chapkit_flows import Modell", "cannot be imported: ImportError: cannot import name 'Modell'"),
        ("def broken(:\n", "cannot be imported: SyntaxError: .*line 1"),
        ("\n\n1 / 0", r"cannot be imported: ZeroDivisionError: division by zero \(.*broken\.py, line 3\)"),
        ("x = 'é'".encode("latin-1"), "cannot be imported: SyntaxError"),
        ("import sys; sys.exit('usage: ...')", "cannot be imported: SystemExit: usage"),
    ],
)
def test_broken_files(tmp_path: Path, source: str | bytes, message: str) -> None:
    """A file that cannot be imported says why and where, each time it is asked."""
    file = tmp_path / "broken.py"
    file.write_bytes(source if isinstance(source, bytes) else source.encode())
    for _ in range(2):
        with pytest.raises(ModelNotFound, match=message):
            load_model(file)


def test_refused_contract_keeps_its_own_error(tmp_path: Path) -> None:
    """A contract that contradicts itself is an error of the model, also through load_model."""
    (tmp_path / "wrong.py").write_text(MODEL.format(name="Rain", neighbour="wrong_neighbour"))
    (tmp_path / "wrong_neighbour.py").write_text(NEIGHBOUR)
    with pytest.raises(InvalidModel, match="model name 'Rain' is not usable"):
        load_model(tmp_path / "wrong.py")


def install(folder: Path, module: str, source: str, **points: str) -> None:
    """Lay out a distribution as an installer does: a module and its dist-info."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = [f"{name.replace('_', '-')} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[chapkit_flows.models]", *lines]))
    importlib.invalidate_caches()


THIRD_PARTY = """
    import pandas as pd
    from chapkit_flows import BaseModelRunner, Model, ModelConfig

    class MeanConfig(ModelConfig):
        factor: float = 1.0

    class MeanRunner(BaseModelRunner):
        async def on_init(self):
            self.ready = True

        def on_train(self, config, data, geo=None):
            assert self.ready
            return Means(data.groupby("location")["disease_cases"].mean() * config.factor)

        def on_predict(self, config, model, historic, future, geo=None):
            return future[["time_period", "location"]].assign(prediction=future["location"].map(model.means))

    class Means:
        def __init__(self, means):
            self.means = means

    mean = Model(name="third-party-mean", config=MeanConfig, runner=MeanRunner())
    """


def test_installed_model_trains_and_predicts(server: str, home: Path, tmp_path: Path) -> None:
    """A third party's runner, found by entry point, trains and predicts through its model's own flows."""
    install(tmp_path, "third_party_mean", THIRD_PARTY, third_party_mean="third_party_mean:mean")
    (tmp_path / "data.csv").write_text(
        "time_period,location,disease_cases\n2020-01,001,2\n2020-02,001,4\n2020-02,NA,7\n"
    )
    (tmp_path / "future.csv").write_text("time_period,location\n2020-03,001\n2020-03,NA\n")

    model = load_model("third-party-mean")
    assert isinstance(model, Model)
    trained = model.train(model.config(factor=2.0), str(tmp_path / "data.csv"))
    predicted = model.predict(trained.artifact_id, str(tmp_path / "data.csv"), str(tmp_path / "future.csv"))

    resources = open_resources()
    frame = load(resources.store, get_artifact(resources.database, predicted.artifact_id))
    expected = {"time_period": ["2020-03"] * 2, "location": ["001", "NA"], "prediction": [6.0, 14.0]}
    assert expected == frame.to_dict("list")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("x = 1", "x", r"The entry point 'odd' \(.*:x\) is of type int; it must name a Model"),
        ("x = 1", "y", r"The installed model 'odd' \(.*:y\) does not load: .*'y'"),
        ("import no_such_package", "x", "does not load: ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:", "x", "does not load: SyntaxError"),
        ("1 / 0", "x", "does not load: ZeroDivisionError"),
        ("", None, "does not load: ModuleNotFoundError"),
    ],
)
def test_broken_entry_points(
    tmp_path: Path, request: pytest.FixtureRequest, source: str, target: str | None, message: str
) -> None:
    """An entry point that does not lead to a model is named, with where it leads and why not."""
    module = f"odd_{abs(hash(request.node.name))}"
    install(tmp_path, module, source, odd=f"{module}:{target}" if target else "no_such_module:x")
    with pytest.raises(ModelNotFound, match=message):
        load_model("odd")
    with pytest.raises(ModelNotFound, match=r"installed: .*odd"):
        load_model("even")
