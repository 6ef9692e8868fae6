"""Every error this package raises on purpose, by whose layer failed.

    ChapkitFlowsError
    ├── ConfigError
    │   ├── ConfigNotFound
    │   ├── InvalidConfig
    │   ├── InvalidBlockDocument
    │   ├── ConfigChanged
    │   └── InvalidAutomation
    ├── DataError
    │   ├── DataNotFound
    │   ├── UnreadableTable
    │   │   └── EmptyTable
    │   ├── InvalidPeriod
    │   └── InvalidGeo
    ├── ModelError
    │   ├── ModelNotFound
    │   ├── InvalidModel
    │   ├── RunnerFailed
    │   │   ├── ScriptFailed
    │   │   └── PlacesFailed
    │   └── InvalidPrediction
    ├── ValidationFailed
    │   └── GateFailed
    ├── ArtifactError
    │   ├── InvalidId
    │   ├── ArtifactNotFound
    │   ├── ArtifactDeleted
    │   ├── ObjectMissing
    │   ├── DigestMismatch
    │   ├── StoreUnavailable
    │   ├── UnsafeTree
    │   ├── ArtifactTooLarge
    │   └── UnpicklableModel
    ├── LineageError
    │   ├── RunNotFound
    │   ├── InvalidFilter
    │   ├── RegistryError
    │   │   ├── ModelVersionNotFound
    │   │   ├── InvalidAlias
    │   │   └── PromotionConflict
    │   ├── ExperimentNotFound
    │   ├── InvalidExperiment
    │   ├── DatabaseUnavailable
    │   ├── DatabaseLocked
    │   └── DatabaseTooNew
    ├── EvaluationError
    │   ├── BacktestFailed
    │   ├── TooFewPeriods
    │   ├── UnscorableForecast
    │   ├── UnknownMetric
    │   ├── WorkerLost
    │   ├── InvalidGate
    │   └── InvalidSweep
    ├── UpkeepError
    │   ├── BackupNotFound
    │   └── NotEmpty
    ├── InvalidSetting
    ├── InvalidDeployment
    ├── ServerUnavailable
    └── ServerRefused

Each message names the thing that is wrong and what to do about it. A class's docstring is its default
message. The command line prints the message alone and exits with `exit_code`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from chapkit_flows.refs import Diagnostic


class ChapkitFlowsError(Exception):
    """chapkit_flows cannot go on. See the message for the remedy."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str = "") -> None:
        text = message or inspect.cleandoc(type(self).__doc__ or "")
        # A file name that is not UTF-8 could neither be logged nor recorded.
        super().__init__(text.encode(errors="replace").decode())


class ConfigError(ChapkitFlowsError):
    """The config cannot be used. Check its fields against the model's config class."""


class ConfigNotFound(ConfigError):
    """No saved config has that name. List the saved ones in Prefect's UI under Blocks, or apply one."""


class InvalidConfig(ConfigError):
    """A config value does not fit its field. Correct the value."""


class InvalidBlockDocument(ConfigError):
    """A block document cannot be applied. It needs the keys block_type_slug, name and fields."""


class InvalidAutomation(ConfigError):
    """An automation cannot be applied. It needs the keys name, trigger and actions."""


class ConfigChanged(ConfigError):
    """Somebody else changed the saved config meanwhile. Look at it, and do it again."""


class DataError(ChapkitFlowsError):
    """The data cannot be used. Check the table and its columns."""


class DataNotFound(DataError):
    """There is nothing readable at that URI. Check the path, the scheme and your rights."""


class UnreadableTable(DataError):
    """The file is not a table this package reads. Save it as UTF-8 CSV with commas, or as Parquet."""


class EmptyTable(UnreadableTable):
    """The table has no rows, and not even a header line. Give a header line and one row per place and period."""


class InvalidPeriod(DataError):
    """A period is not written in a known form. Write 2020-01 for a month, 2020-W05 for an ISO week."""


class InvalidGeo(DataError):
    """The GeoJSON cannot be used. It must be a FeatureCollection whose feature ids are the locations."""


class ModelError(ChapkitFlowsError):
    """The model cannot be used. Check its file and its runner."""


class ModelNotFound(ModelError):
    """No model is there. Write path/to/file.py:name, or the name of an installed model."""


class InvalidModel(ModelError):
    """The model's contract contradicts itself. Correct the arguments of Model."""


class RunnerFailed(ModelError):
    """The model's own code failed. Its traceback is in the log of the run."""


class ScriptFailed(RunnerFailed):
    """A command of the model failed. Its workspace is kept as a failed artifact."""

    def __init__(self, message: str = "", *, workspace: Any = None) -> None:
        self.workspace = workspace
        super().__init__(message)


class PlacesFailed(RunnerFailed):
    """A model that is trained for each place could not be trained for some. Correct their data, or leave them out."""

    def __init__(self, message: str = "", *, reasons: Mapping[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        super().__init__(message)


class InvalidPrediction(ModelError):
    """The model returned predictions that cannot be used. Return one row per place and future period."""


class ValidationFailed(ChapkitFlowsError):
    """Validation found errors. Correct the inputs that the diagnostics name."""

    def __init__(self, diagnostics: Sequence[Diagnostic], message: str = "") -> None:
        self.diagnostics = tuple(diagnostics)
        errors = [f"{found.code}: {found.message}" for found in self.diagnostics if found.severity == "error"]
        super().__init__(message or "\n".join(errors))


class GateFailed(ValidationFailed):
    """The gate does not let the model version pass. Nothing was changed."""

    exit_code: ClassVar[int] = 1


class ArtifactError(ChapkitFlowsError):
    """The artifact cannot be used."""


class InvalidId(ArtifactError):
    """That is not an id. Ids have 26 letters and digits, such as 01JD3Q0Z8V6Y3N5W2T7R9K4M1B."""


class ArtifactNotFound(ArtifactError):
    """No artifact has that id. List them with: chapkit-flows artifacts list"""


class ArtifactDeleted(ArtifactError):
    """The artifact is in the trash. Bring it back with: chapkit-flows artifacts restore ID"""


class ObjectMissing(ArtifactError):
    """The store does not hold the bytes of that artifact. Check the storage URL."""


class DigestMismatch(ArtifactError):
    """The stored bytes are not those that were recorded. Restore the object from a backup."""


class StoreUnavailable(ArtifactError):
    """The artifact store cannot be read or written. Check its URL, rights and free space."""


class UnsafeTree(ArtifactError):
    """A stored folder names a path outside itself. It is not extracted."""


class ArtifactTooLarge(ArtifactError):
    """The artifact has more bytes than may be loaded. Raise the setting max_load_bytes if there is the memory."""


class UnpicklableModel(ArtifactError):
    """The trained model cannot be pickled. Return plain data from on_train, or use a shell model."""


class LineageError(ChapkitFlowsError):
    """The lineage database cannot be used."""


class RunNotFound(LineageError):
    """No run has that id. List them with: chapkit-flows runs list"""


class InvalidFilter(LineageError):
    """The filter cannot be read. Write it like: metric.crps < 20 and (tag.site = "A" or model = "rain")"""


class RegistryError(LineageError):
    """The registry cannot do that. List its versions with: chapkit-flows models list"""


class ModelVersionNotFound(RegistryError):
    """There is no such model version. List the versions with: chapkit-flows models list"""


class InvalidAlias(RegistryError):
    """That cannot be an alias. Write lower-case letters, digits, - and _, starting with a letter."""


class PromotionConflict(RegistryError):
    """The alias was moved by somebody else meanwhile. Compare with its new holder and promote again."""


class ExperimentNotFound(LineageError):
    """There is no experiment of that name. List them with: chapkit-flows experiments list"""


class InvalidExperiment(LineageError):
    """The experiment cannot be begun under that name. Choose another name."""


class DatabaseUnavailable(LineageError):
    """The lineage database cannot be reached. Check its URL, rights and free space."""


class DatabaseLocked(LineageError):
    """Another process holds the lineage database. Wait for it to end, or use PostgreSQL for many writers."""


class DatabaseTooNew(LineageError):
    """A newer chapkit_flows wrote the lineage database. Upgrade this installation."""


class EvaluationError(ChapkitFlowsError):
    """The forecasts cannot be evaluated. See the message for the remedy."""


class TooFewPeriods(EvaluationError):
    """The panel has fewer periods than the splits need. Ask for fewer splits or periods ahead, or bring more data."""


class BacktestFailed(EvaluationError):
    """No fold of the backtest could be done. The log of each fold says why."""


class UnscorableForecast(EvaluationError):
    """The forecasts or the truth cannot be scored. Give one row per place and period, and finite samples."""


class UnknownMetric(EvaluationError):
    """No metric has that name. Write one of the names in chapkit_flows.evaluation.metrics."""


class WorkerLost(EvaluationError):
    """The worker that did a fold, or trained for some places, was lost. Run again: only what is missing is done.

    Attributes:
        with_others: Whether what others did was lost with it, whichever was the cause.
    """

    def __init__(self, message: str = "", *, with_others: bool = False) -> None:
        super().__init__(message)
        self.with_others = with_others


class InvalidGate(EvaluationError):
    """The gate cannot be read. Write rules such as: better: {metric: crps, by: 0.02, p_below: 0.1}"""


class InvalidSweep(EvaluationError):
    """The sweep cannot be made. Correct the values, ranges or numbers that the message names."""


class UpkeepError(ChapkitFlowsError):
    """The store and the database cannot be looked after. See the message for the remedy."""


class BackupNotFound(UpkeepError):
    """There is no backup. Make one with: chapkit-flows backup TO"""


class NotEmpty(UpkeepError):
    """The lineage database has runs already. Restore and rebuild write into an empty one only."""


class InvalidSetting(ChapkitFlowsError):
    """A setting does not fit its field. Correct or unset its environment variable."""


class InvalidDeployment(ChapkitFlowsError):
    """The deployment would never run. Correct what the message names in the command or in prefect.yaml."""


class ServerUnavailable(ChapkitFlowsError):
    """The Prefect server does not answer. Start it with `prefect server start`, or check PREFECT_API_URL."""


class ServerRefused(ChapkitFlowsError):
    """The Prefect server refused a request. See its answer; it may want PREFECT_API_AUTH_STRING."""
