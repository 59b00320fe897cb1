"""Damaged rasters are read or refused: no other error, no crash, no hang, no memory beyond the window's. See fuzz.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fuzz import fuzz
from fuzz_mutants import Corpus, build_corpus

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures memory in /proc")


def test_mutants_follow_from_seed_and_number(tmp_path: Path) -> None:
    build_corpus(tmp_path)
    one, other = Corpus(tmp_path), Corpus(tmp_path)
    forwards = [one.mutant(5, i) for i in range(40)]
    backwards = [other.mutant(5, i) for i in reversed(range(40))][::-1]
    assert forwards == backwards
    assert len({mutant.content for mutant in forwards}) == 40


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(3, 150, id="quick"),
        pytest.param(2, 5200, id="full", marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_damaged_rasters_are_read_or_refused(seed: int, count: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = fuzz(seed, range(count))
    with capsys.disabled():
        sys.stdout.write(f"\n{report.text()}\n" if count > 1000 else "")
    assert not report.failures, report.text()
    kinds = [one.kind for one in report.outcomes]
    assert len(kinds) == count
    assert min(kinds.count(kind) for kind in ("read", "masked", "refused")) > count // 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_over_damaged_rasters_end_or_are_refused() -> None:
    report = fuzz(1, range(300), mode="run")
    assert not report.failures, report.text()
    assert sum(one.kind == "read" for one in report.outcomes) > 30
