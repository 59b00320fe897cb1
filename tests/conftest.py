"""Shared fixtures. Real third-party data is used where it lies beside the checkout, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

hypothesis.settings.register_profile("geoseg", deadline=None, max_examples=60, print_blob=True)
hypothesis.settings.load_profile("geoseg")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Converted networks are kept for the session, and not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party imagery and labels; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the third-party data folder ../shared/data, which is not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def samples() -> Path:
    return ROOT / "sample_tiles"
