"""A picture for the block types that loads without internet."""

from __future__ import annotations

from prefect.client.schemas.objects import BlockType
from prefect.settings import PREFECT_UI_URL

_PICTURE = "ico/android-chrome-192x192.png"


def with_logo(block_type: BlockType) -> BlockType:
    """The same block type with a picture that the Prefect server itself serves, if it has pages.

    Prefect takes no data URI there, and where there is no internet any other URL is a broken picture, as no URL is one
    in the second of its UIs.
    """
    pages = PREFECT_UI_URL.value()
    if not pages:
        return block_type
    return BlockType.model_validate(block_type.model_dump() | {"logo_url": f"{pages.rstrip('/')}/{_PICTURE}"})
