"""Models whose config has secrets; they note what they are given, and keep none of it."""

import hashlib
import os
import shlex
import sys
from pathlib import Path

from pydantic import BaseModel, SecretStr

from chapkit_flows import Diagnostic, FunctionalModelRunner, Model, ModelConfig, ShellModelRunner
from chapkit_flows.models.workspace import Project


class Login(BaseModel):
    """A nested secret."""

    user: str = "nobody"
    password: SecretStr = SecretStr("")


class SecretiveConfig(ModelConfig):
    """Settings with secrets."""

    token: SecretStr = SecretStr("")
    login: Login = Login()


SEEN: list[tuple[str, str]] = []


def on_train(config, data, geo=None):
    SEEN.append((config.token.get_secret_value(), config.login.password.get_secret_value()))
    return {"mean": 1.0}


def on_predict(config, model, historic, future, geo=None):
    SEEN.append((config.token.get_secret_value(), config.login.password.get_secret_value()))
    return future[["time_period", "location"]].assign(prediction=model["mean"])


SCRIPT = """
import hashlib, pathlib, sys
config = pathlib.Path("config.yml").read_text()
pathlib.Path("seen.txt").write_text(hashlib.sha256(config.encode()).hexdigest())
if sys.argv[1] == "predict":
    head, *rows = pathlib.Path("future.csv").read_text().splitlines()
    lines = ["time_period,location,prediction"] + [",".join(row.split(",")[:2]) + ",1" for row in rows]
    pathlib.Path("predictions.csv").write_text("\\n".join(lines) + "\\n")
"""
command = f"{shlex.quote(sys.executable)} -S -E -c {shlex.quote(SCRIPT)}"
secretive = Model(name="secretive", config=SecretiveConfig, runner=FunctionalModelRunner(on_train, on_predict))
commanded = Model(
    name="secretive-commands",
    config=SecretiveConfig,
    runner=ShellModelRunner(
        f"{command} train", f"{command} predict", project=Project(folder=Path(__file__).parent, include=["nothing"])
    ),
)


def strict_train(config, data, geo=None):
    """Refuses a reference in the place of its value."""
    for secret in (config.token, config.login.password):
        if secret.get_secret_value().startswith("$"):
            raise ValueError("the token is a reference")
    return {"mean": 1.0}


def strict_predict(config, model, historic, future, geo=None):
    strict_train(config, historic)
    return future[["time_period", "location"]].assign(prediction=model["mean"])


strict = Model(name="strict", config=SecretiveConfig, runner=FunctionalModelRunner(strict_train, strict_predict))


def raising(config, data, geo=None):
    """Says in its error what it should keep to itself."""
    try:
        raise ConnectionError(f"https://ana:{config.login.password.get_secret_value()}@example.org refused")
    except ConnectionError as error:
        raise ValueError(f"cannot log in with {config.token.get_secret_value()!r}") from error


def telling(config, data, geo=None):
    """A finding that repeats a secret."""
    return [Diagnostic.error("bad_token", f"the token {config.token.get_secret_value()} is not known")]


PRINTING = """
import pathlib, sys
config = pathlib.Path("config.yml").read_text()
print(config, flush=True)
raise SystemExit("cannot log in: " + config)
"""
leaky = Model(name="leaky", config=SecretiveConfig, runner=FunctionalModelRunner(raising, on_predict))
leaky_check = Model(
    name="leaky-check",
    config=SecretiveConfig,
    runner=FunctionalModelRunner(on_train, on_predict, on_validate_train=telling),
)
leaky_commands = Model(
    name="leaky-commands",
    config=SecretiveConfig,
    runner=ShellModelRunner(
        f"{shlex.quote(sys.executable)} -S -E -c {shlex.quote(PRINTING)}",
        "true",
        project=Project(folder=Path(__file__).parent, include=["nothing"]),
    ),
)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def knowing(config, data, geo=None):
    """Trains only where the secret is the one whose digest EXPECTED_DIGEST says."""
    assert os.environ["EXPECTED_DIGEST"] == hashlib.sha256(config.token.get_secret_value().encode()).hexdigest()
    return {"mean": 1.0}


knows = Model(name="knows", config=SecretiveConfig, runner=FunctionalModelRunner(knowing, on_predict))
