"""The table between training and evaluation."""

import os
from pathlib import Path

import polars as pl
import pytest

from polyhead.errors import DiskError, PredictionsError
from polyhead.predictions import read_predictions, write_predictions

TABLE = pl.DataFrame(
    {
        "image": ["a", "b", "a"],
        "patient_id": ["01", "2", "01"],
        "finding": ["Edema", "Edema", "Mass"],
        "label": [1, None, 0],
        "score": [0.25, 0.5, 1e-30],
    }
)


def test_parquet_and_csv_give_the_same_table(tmp_path: Path) -> None:
    write_predictions(TABLE, tmp_path / "p.parquet")
    TABLE.write_csv(tmp_path / "p.csv")
    from_parquet, from_csv = read_predictions(tmp_path / "p.parquet"), read_predictions(tmp_path / "p.csv")
    assert from_parquet.equals(from_csv)
    assert from_csv["patient_id"].to_list() == ["01", "2", "01"]
    assert from_csv["label"].to_list() == [1, None, 0]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("score", float("nan"), "row 2, column 'score': nan"),
        ("score", float("inf"), "row 2, column 'score': inf"),
        ("score", None, "row 2, column 'score': None"),
        ("label", 2, "row 2, column 'label': 2"),
        ("image", None, "row 2, column 'image': None"),
        ("image", "a", "row 2, column 'finding': 'Edema'"),
    ],
)
def test_a_bad_cell_is_named(column: str, value: object, message: str, tmp_path: Path) -> None:
    values = TABLE[column].to_list()
    values[1] = value
    broken = TABLE.with_columns(pl.Series(column, values))
    with pytest.raises(PredictionsError, match=message):
        write_predictions(broken, tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()


@pytest.mark.parametrize("text", ["nan", "high", ""])
def test_a_score_in_a_csv_that_is_no_number_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f"image,patient_id,finding,label,score\na,1,Edema,1,0.5\nb,1,Edema,1,{text}\n")
    with pytest.raises(PredictionsError, match="row 2, column 'score'"):
        read_predictions(tmp_path / "p.csv")


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    TABLE.rename({"score": "scores"}).write_csv(tmp_path / "p.csv")
    with pytest.raises(PredictionsError, match="no column 'score'; closest: scores"):
        read_predictions(tmp_path / "p.csv")


def test_no_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(PredictionsError, match="cannot be read as parquet"):
        read_predictions(tmp_path / "p.parquet")


def test_a_parquet_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    write_predictions(TABLE, tmp_path / "p.parquet")
    raw = (tmp_path / "p.parquet").read_bytes()
    for length in range(0, len(raw), 5):
        (tmp_path / "p.parquet").write_bytes(raw[:length])
        with pytest.raises(PredictionsError, match=r"cannot be read as parquet.*write it again"):
            read_predictions(tmp_path / "p.parquet")


def test_a_full_disk_leaves_the_old_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_predictions(TABLE, tmp_path / "p.parquet")

    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskError, match=r"p\.parquet: .*bytes are needed"):
        write_predictions(TABLE.head(1), tmp_path / "p.parquet")
    assert read_predictions(tmp_path / "p.parquet").height == 3
    assert [path.name for path in tmp_path.iterdir()] == ["p.parquet"]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_pipe_is_refused_at_once(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"p{suffix}")
    with pytest.raises(PredictionsError, match="is not a file"):
        read_predictions(tmp_path / f"p{suffix}")
