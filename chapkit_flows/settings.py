"""The settings of this package: environment variables, a Prefect profile, prefect.toml or pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect.settings.base import PrefectBaseSettings, build_settings_config
from pydantic import Field, SecretStr

TaskRunnerKind = Literal["threads", "processes", "dask", "ray"]


class ChapkitFlowsSettings(PrefectBaseSettings):
    """Where bytes and facts are kept, and how models are run.

    Each field is read from `PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_<FIELD>`.
    """

    model_config = build_settings_config(("integrations", "chapkit_flows"))

    home: Annotated[Path, Field(description="Folder of the default store and the default database.")] = Path(
        "~/.chapkit-flows"
    )
    storage_url: Annotated[
        str | None, Field(description="fsspec URL of the artifact store; default: `artifacts` below home.")
    ] = None
    storage_options: Annotated[
        dict[str, Any], Field(description="Keyword arguments for the fsspec file system, as JSON.")
    ] = {}
    storage_block: Annotated[
        str | None,
        Field(
            description="Name of a saved block of type artifact-location; with one, storage_url and storage_options "
            "are not used."
        ),
    ] = None
    database_url: Annotated[
        SecretStr | None,
        Field(description="SQLAlchemy URL of the lineage database; default: `lineage.db` below home."),
    ] = None
    script_timeout_seconds: Annotated[
        float, Field(gt=0, description="A command of a shell model that runs longer than this is stopped.")
    ] = 6 * 3600.0
    progress_seconds: Annotated[
        float,
        Field(ge=0, description="A run whose model takes longer than this shows its progress, so often; 0 never does."),
    ] = 5.0
    task_runner: Annotated[TaskRunnerKind, Field(description="Where the folds of a backtest run.")] = "threads"
    task_runner_workers: Annotated[
        int,
        Field(
            ge=1,
            description="How many folds of a backtest run at the same time, each on one processor; fewer if the model "
            "says that a fold needs more.",
        ),
    ] = 1
    cluster_address: Annotated[
        str | None,
        Field(
            description="Of a running Dask scheduler (tcp://HOST:8786) or Ray cluster (ray://HOST:10001); default: "
            "each backtest starts a cluster of its own."
        ),
    ] = None
    allow_pickle: Annotated[
        bool,
        Field(description="Whether a trained model that is kept as a pickle may be loaded: reading one runs code."),
    ] = True
    max_load_bytes: Annotated[
        int, Field(ge=0, description="A trained model with more bytes than this is not loaded; 0 sets no limit.")
    ] = 8 << 30

    events: Annotated[
        bool, Field(description="Whether runs send Prefect events, such as chapkit.model.trained; hooks run anyway.")
    ] = True

    def resolved_storage_url(self) -> str:
        """The URL of the store."""
        return self.storage_url or str(self.home.expanduser().absolute() / "artifacts")

    def resolved_database_url(self) -> str:
        """The URL of the database, with its password in plain text: never print it."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.home.expanduser().absolute() / 'lineage.db'}"
