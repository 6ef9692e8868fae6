"""The block that says where artifacts are kept, with the credentials to get there."""

from __future__ import annotations

import re
from typing import ClassVar

import httpx
from prefect.blocks.core import Block
from prefect.client.schemas.objects import BlockType
from prefect.types import SecretDict
from pydantic import ConfigDict, Field, ValidationError, field_validator

from chapkit_flows.configs.logo import with_logo
from chapkit_flows.configs.versions import explain
from chapkit_flows.errors import ConfigNotFound, InvalidConfig, ServerUnavailable

_PASSWORD = re.compile(r"://[^/@:]*:.*@|[?&][^=]*=")


class ArtifactLocation(Block):
    """Where the artifact store is, and what it takes to open it.

    The options are secret: the server keeps them encrypted and shows them as asterisks. The URL is shown, so
    it may hold no password: name user and password among the options.

    Example:
        ```python
        from chapkit_flows import ArtifactLocation

        options = {"key": "…", "secret": "…", "client_kwargs": {"endpoint_url": "https://minio.example.org"}}
        ArtifactLocation(url="s3://forecasts/artifacts", options=options).save("production")
        ```

        Then set `PREFECT_INTEGRATIONS_CHAPKIT_FLOWS_STORAGE_BLOCK=production`.
    """

    # A value that does not fit must not be repeated in the error.
    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name: ClassVar[str | None] = "Artifact Location"
    _block_type_slug: ClassVar[str | None] = "artifact-location"
    _description: ClassVar[str | None] = "Where chapkit-flows keeps datasets, trained models and predictions."

    url: str = Field(
        title="URL",
        description="Path or fsspec URL of the artifact store, such as s3://bucket/artifacts; without a password.",
    )
    options: SecretDict = Field(
        default=SecretDict({}),
        title="Options",
        description="Keyword arguments of the fsspec file system, such as credentials.",
    )

    @classmethod
    def _to_block_type(cls) -> BlockType:
        return with_logo(super()._to_block_type())

    @field_validator("url")
    @classmethod
    def _refuse_password(cls, url: str) -> str:
        if _PASSWORD.search(url):
            raise ValueError("It holds a password or a signature, which would be shown. Move it to the options.")
        return url


def load_location(name: str) -> ArtifactLocation:
    """Load a saved location, from any thread.

    Args:
        name: `artifact-location/NAME`, or NAME alone.

    Raises:
        ConfigNotFound: There is none of that name.
        InvalidConfig: What is saved is no location.
        ServerUnavailable: The Prefect server does not answer, or refuses.
    """
    slug = ArtifactLocation.get_block_type_slug()
    try:
        # Inside a flow Prefect would return a coroutine, which a worker thread cannot await.
        found = ArtifactLocation.load(name.removeprefix(f"{slug}/"), _sync=True)  # type: ignore[call-arg]
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise
        raise ConfigNotFound(
            f"There is no saved block {slug}/{name.removeprefix(f'{slug}/')}, which the setting storage_block names. "
            "Save one in Prefect's UI under Blocks, or set storage_url instead."
        ) from error
    except RuntimeError as error:
        if isinstance(error.__cause__, ValidationError):
            raise InvalidConfig(f"The saved block {slug}/{name} is invalid: {explain(error.__cause__)}") from error
        if "Failed to reach API" not in str(error):
            raise
        raise _unreachable(name, error) from error
    except httpx.HTTPError as error:
        raise _unreachable(name, error) from error
    assert isinstance(found, ArtifactLocation)
    return found


def _unreachable(name: str, error: Exception) -> ServerUnavailable:
    return ServerUnavailable(
        f"The Prefect server, which keeps the storage block {name}, does not answer: {error}. "
        "Start it with `prefect server start`, correct PREFECT_API_URL, or set storage_url instead."
    )
