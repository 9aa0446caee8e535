"""What is left out is counted, and half a download is not taken for a data set."""

from pathlib import Path

import polars as pl
import pytest

from polyhead.adapters.images import folders_of, keep_present, list_images
from polyhead.adapters.imported import Options
from polyhead.adapters.rows import age_in_years, keep, keep_frontal, sex_letter
from polyhead.errors import SourceError

VIEWS = pl.DataFrame({"view": ["PA", None, "LL", "AP", None, "LL", "LL"]})


def images(root: Path, *, there: int, missing: int) -> pl.DataFrame:
    (root / "a").mkdir()
    names = [f"a/{number:04d}.png" for number in range(there + missing)]
    for name in names[:there]:
        (root / name).touch()
    return pl.DataFrame({"image": names[::-1]})


def test_views_are_left_out_with_their_count_and_blank_ones_apart() -> None:
    kept, notes = keep_frontal(VIEWS, pl.col("view").is_in(["AP", "PA"]), Options())
    assert kept["view"].to_list() == ["PA", "AP"]
    assert notes == [
        "Images left out because they have no view position: 2.",
        "Images left out because they are not frontal views: 3.",
    ]
    assert keep_frontal(VIEWS, pl.col("view") == "PA", Options(views="all")) == (VIEWS, [])


def test_leaving_everything_out_is_an_error_and_leaving_nothing_out_is_no_note() -> None:
    assert keep(VIEWS, pl.lit(True), "are odd")[1] == []
    with pytest.raises(SourceError, match="all 7 images are odd"):
        keep(VIEWS, pl.lit(None, pl.Boolean), "are odd")


AGES = {"58": "58", "058Y": "58", "58.0": "58", "0": "0", "013M": "1", "005D": "0", "120": "120"}
NO_AGES = ("121", "414", "-3", "old", "", None, "9" * 14)


@pytest.mark.parametrize(("text", "years"), [*AGES.items(), *((text, None) for text in NO_AGES)])
def test_ages_are_whole_years_or_blank(text: str | None, years: str | None) -> None:
    assert pl.DataFrame({"x": [text]}, {"x": pl.String}).select(age_in_years("x"))["age"].to_list() == [years]


def test_sex_is_a_letter_or_blank() -> None:
    given = ["M", "female", "Male", "F", "Unknown", "O", None]
    assert pl.DataFrame({"x": given}).select(sex_letter("x"))["sex"].to_list() == ["M", "F", "M", "F", None, None, None]


def test_folders_are_listed_and_absent_ones_are_empty(tmp_path: Path) -> None:
    images(tmp_path, there=2, missing=0)
    (tmp_path / "top.tar.gz").touch()
    listed = list_images(tmp_path, ["a", "b", "top.tar.gz"])
    assert sorted(listed.rows()) == [("a/0000.png", "0000.png", "0000"), ("a/0001.png", "0001.png", "0001")]
    assert ("top.tar.gz", "top.tar.gz", "top.tar") in list_images(tmp_path, [""]).rows()
    assert sorted(folders_of(pl.DataFrame({"image": ["a/b/c.png", "c.png", "a/d.png"]}))) == ["", "a", "a/b"]


def test_one_in_a_hundred_may_be_missing_and_is_counted(tmp_path: Path) -> None:
    frame = images(tmp_path, there=99, missing=1)
    kept, notes = keep_present(frame, list_images(tmp_path, ["a"]), tmp_path, Options(), "the page")
    assert kept["image"].to_list() == frame["image"].to_list()[1:]
    assert notes == ["Images left out because they are not on disk: 1 of 100."]
    assert keep_present(kept, list_images(tmp_path, ["a"]), tmp_path, Options(), "the page") == (kept, [])


def test_more_than_that_is_half_a_download_unless_it_is_allowed(tmp_path: Path) -> None:
    frame = images(tmp_path, there=98, missing=2)
    listing = list_images(tmp_path, ["a"])
    with pytest.raises(SourceError) as problem:
        keep_present(frame, listing, tmp_path, Options(), "the page")
    assert str(problem.value) == (
        f"{tmp_path}: 2 of 100 images are not on disk, first a/0099.png, a/0098.png. "
        "Complete the download (the page), or leave the missing images out with --allow-missing."
    )
    assert keep_present(frame, listing, tmp_path, Options(allow_missing=True), "the page")[0].height == 98


def test_no_image_at_all_is_never_allowed(tmp_path: Path) -> None:
    frame = images(tmp_path, there=0, missing=3)
    with pytest.raises(SourceError, match=r"3 of 3 images are not on disk.*Complete the download \(the page\)\.$"):
        keep_present(frame, list_images(tmp_path, ["a"]), tmp_path, Options(allow_missing=True), "the page")
