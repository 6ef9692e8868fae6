"""Which URIs are the same one."""

from __future__ import annotations

from pathlib import Path

import pytest

from chapkit_flows.lineage.readings import uri_digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data.csv", "./folder/../data.csv"),
        ("data.csv", "file://{here}/data.csv"),
        ("~/data.csv", "{home}/data.csv"),
        ("https://ana:one@host/a.csv", "https://bo:two@host/a.csv"),
        ("https://host/a.csv?token=1&period=2025", "https://host/a.csv?period=2025&token=2"),
        ("https://b.s3.amazonaws.com/a.csv?X-Amz-Date=1&X-Amz-Signature=2", "https://b.s3.amazonaws.com/a.csv"),
        ("https://x.blob.core.windows.net/c/a.csv?sv=1&se=2&sig=3", "https://x.blob.core.windows.net/c/a.csv?sig=4"),
    ],
)
def test_one_uri_in_two_spellings(one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the working directory nor who asks makes another URI of one."""
    monkeypatch.chdir(tmp_path)
    other = other.format(here=tmp_path, home=Path.home())
    assert uri_digest(one) == uri_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("data.csv", "other/data.csv"),
        ("s3://a/data.csv", "s3://b/data.csv"),
        ("https://host/analytics?year=2025", "https://host/analytics?year=2026"),
        ("https://host/a.csv?keyword=1", "https://host/a.csv?keyword=2"),
        ("~nobody-of-that-name/a.csv", "~nobody-of-that-name/b.csv"),
    ],
)
def test_two_uris(one: str, other: str) -> None:
    """What may bring other content is another URI."""
    assert uri_digest(one) != uri_digest(other)
