"""D02: a run that is killed between every two file operations ends as if it had never been."""

from pathlib import Path

import pytest

from tests.test_kill import contents, drive, write_study


@pytest.mark.slow
def test_killed_between_every_two_file_operations(tmp_path: Path) -> None:
    """Each start gets one operation further than the one before, so every save is cut off at every point in turn."""
    study = write_study(tmp_path)
    short = study.with_name("short.toml")
    short.write_text(study.read_text().replace('"local", "ffl"', '"ffl"').replace("rounds = 3", "rounds = 2"))
    (told,) = drive({"study": str(short), "out": str(study.parent / "short")})
    operations = int(told["operations"])
    out = study.parent / "aimed"
    (result,) = drive({"study": str(short), "out": str(out), "at": list(range(1, operations + 1))})
    # The last starts have less left to do than operations to wait for, and end by themselves.
    assert result["hits"] > operations / 3
    assert contents(out) == contents(study.parent / "short")
