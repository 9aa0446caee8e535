"""What may leave: no canary, no count below five, and none that could be worked out."""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.check.images import Reading
from polyhead.check.share import KINDS, K, check_writable, rounded, summarize, write_share
from polyhead.check.site import check_sites
from polyhead.errors import UsageError
from tests.check.conftest import HEADER, TABLES_ONLY, noise, rows_of, write_site

Site = Callable[..., Path]


def shared(folder: Path, reading: Reading = TABLES_ONLY) -> dict[str, Any]:
    return summarize(check_sites([folder], reading))


def numbers(value: object) -> Iterator[object]:
    """Every count of a summary: all but the numbering of sites and manifests, and times."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in ("format", "about", "manifest", "site", "machine", "images_read"):
                yield from numbers(part)
    elif isinstance(value, list):
        for part in value:
            yield from numbers(part)
    else:
        yield value


def test_counts_are_rounded_down_and_small_ones_are_one() -> None:
    assert [rounded(count) for count in range(11)] == ["<5"] * 5 + [5] * 5 + [10]
    assert K == 5


def test_no_canary_gets_out(tmp_path: Path) -> None:
    canary = "CANARY"
    folder = tmp_path / f"{canary}-folder"
    cells = [row.split(",") for row in rows_of()]
    rows = [[f"{canary}-{image}", f"{canary}-{patient}", *rest] for image, patient, *rest in cells]
    rows[0][3] = f"{canary}-label"
    rows[1][2] = f"{canary}-split"
    rows[2][0] = f"../{rows[2][0]}"
    rows[3][1] = rows[30][1]
    lines = [",".join([*columns, f"{canary}-view", f"{canary}-age", f"{canary}-study"]) for columns in rows]
    write_site(folder, lines, f"{HEADER},view,age,study_id")
    (folder / rows[5][0]).write_bytes(canary.encode())
    noise(6).save(folder / rows[40][0])
    result = check_sites([folder, tmp_path / f"{canary}-absent"], Reading(size=32, bad_budget=0.5, cache=tmp_path))
    said = " ".join(problem.text for problem in result.all_problems())
    for planted in ("label", "split", "2.png", "p30", "5.png", "40.png", "absent"):
        assert f"{canary}-{planted}" in said, f"no problem names the canary {planted}: this test would prove nothing"
    write_share(result, tmp_path / "share.json")
    assert canary not in (tmp_path / "share.json").read_text()
    assert str(tmp_path) not in (tmp_path / "share.json").read_text()


def test_what_is_shared_is_a_fixed_set_of_keys_and_the_names_of_findings(site: Site) -> None:
    found = shared(site())
    assert set(found) == {"format", "about", "manifests", "sites", "machine"}
    (manifest,), (one,) = found["manifests"], found["sites"]
    assert set(manifest) == {"manifest", "images_read", "problems"}
    assert tuple(manifest["problems"]) == KINDS
    assert set(one) == {"site", "manifest", "splits", "findings"}
    assert one["findings"] == {
        "Edema": {split: {"positives": 10, "negatives": 10, "blank": "<5"} for split in one["splits"]}
    }


def test_a_column_that_cannot_be_a_finding_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        "\n".join(rows_of())
    )  # The header is missing: a patient stands in its place.
    found = shared(tmp_path)
    assert found["sites"] == []
    assert "p0" not in json.dumps(found)


def test_where_a_finding_is_rare_its_split_tells_positives_only(tmp_path: Path) -> None:
    """Otherwise "No Finding" would give the rare ones away, as their sum."""
    rows = []
    for split in ("train", "val", "test"):
        for index in range(60):
            rare = split == "test" and index < 4
            rows.append(f"{split}{index}.png,{split}{index},{split},{int(rare or index % 2)},{int(rare)}")
    (site,) = shared(write_site(tmp_path, rows, f"{HEADER},Mass", images=False))["sites"]
    for finding in ("Edema", "Mass"):
        assert site["findings"][finding]["test"]["negatives"] is None
        assert site["findings"][finding]["test"]["blank"] is None
    assert site["findings"]["Mass"]["test"]["positives"] == "<5"
    assert site["findings"]["Edema"]["test"]["positives"] == 30


labels = st.sampled_from(["1", "0", "", "x"])
row = st.tuples(st.sampled_from(["train", "val", "test", "valid"]), st.integers(0, 20), labels, labels)


@settings(max_examples=150)
@given(rows=st.lists(row, max_size=60))
def test_every_number_is_a_multiple_of_five_or_less_than_five(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, str, str]]
) -> None:
    lines = [f"{index}.png,p{patient},{split},{a},{b}" for index, (split, patient, a, b) in enumerate(rows)]
    folder = write_site(tmp_path_factory.getbasetemp() / "random", lines, f"{HEADER},Mass", images=False)
    for number in numbers(shared(folder)):
        # None where negatives and blanks are not told.
        assert number in ("<5", None) or (isinstance(number, int) and number >= 5 and number % 5 == 0)


def base() -> list[list[str]]:
    """Counts with room: none of them crosses a multiple of five when up to four rows change."""
    rows = [row.split(",") for row in rows_of({"train": 54, "val": 54, "test": 56})]
    for index, columns in enumerate(rows):
        # Of training and validation 0 positives, 29 negatives, 25 blank; 164 patients in all.
        columns[3] = "0" if index % 54 < 29 else ""
    return rows


def with_positives(rows: list[list[str]], count: int) -> None:
    for columns in rows[:count]:
        columns[3] = "1"


def with_bad_labels(rows: list[list[str]], count: int) -> None:
    for columns in rows[50 : 50 + count]:
        columns[3] = "x"


def with_torn_patients(rows: list[list[str]], count: int) -> None:
    for index in range(count):
        rows[index][1] = rows[54 + index][1]


def with_lateral_views(rows: list[list[str]], count: int) -> None:
    for columns in rows[:count]:
        columns[4] = "LL"


@pytest.mark.parametrize("change", [with_positives, with_bad_labels, with_torn_patients, with_lateral_views])
def test_nobody_can_tell_none_from_four(change: Callable[[list[list[str]], int], None], tmp_path: Path) -> None:
    summaries = []
    for count in range(6):
        rows = [[*columns, ""] for columns in base()]
        change(rows, count)
        write_site(tmp_path, [",".join(columns) for columns in rows], f"{HEADER},view", images=False)
        summaries.append(json.dumps(shared(tmp_path)))
    assert len(set(summaries[:5])) == 1
    assert summaries[5] != summaries[0]


def test_nobody_can_tell_an_empty_split_from_a_small_one(tmp_path: Path) -> None:
    summaries = set()
    for size in range(5):
        # 60 to 64 images in all.
        rows = rows_of({"train": 30, "val": 30, "test": size})
        summaries.add(json.dumps(shared(write_site(tmp_path, rows, images=False))))
    assert len(summaries) == 1


def test_a_total_minus_its_parts_leaves_three_values_open_for_a_small_count() -> None:
    """Try all small tables of two findings of the same images: which positives of the first are possible?"""
    possible: dict[tuple[int | str, ...], set[tuple[int, int]]] = {}
    for positives, negatives, blank in itertools.product(range(5), range(25), range(25)):
        images = positives + negatives + blank
        shown = tuple(map(rounded, (images, positives, negatives, blank)))
        possible.setdefault(shown, set()).add((images, positives))
    for shown, other in itertools.product(possible, possible):
        # Larger totals are left out: of them not all tables were tried.
        if shown[0] == other[0] and (shown[0] == "<5" or int(shown[0]) < 20):
            totals = {images for images, _ in possible[shown]} & {images for images, _ in possible[other]}
            left = {positives for images, positives in possible[shown] if images in totals}
            assert not totals or len(left) >= 3, (shown, other)


def test_the_time_of_a_step_is_shared_to_two_digits_and_nothing_that_grows_with_the_images(site: Site) -> None:
    machine = shared(site(), Reading(size=32))["machine"]
    assert machine == {
        "model": "resnet18, 32 x 32 pixels, batches of 32",
        "device": "cpu",
        "seconds_per_step": 0.5,
    }


def test_an_earlier_summary_may_be_replaced_and_nothing_else(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    check_writable(path)
    assert not path.exists()
    write_share(check_sites([site(images=False)], TABLES_ONLY), path)
    check_writable(path)
    for foreign in ("", "{}", "[1]", "image,patient_id", '{"format": 1, "about": "mine"}', "[" * 10_000):
        path.write_text(foreign)
        with pytest.raises(UsageError, match="no earlier summary"):
            check_writable(path)
        assert path.read_text() == foreign


def test_a_place_where_no_summary_can_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="this is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        check_writable(tmp_path / "absent/share.json")

    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(UsageError, match=r"cannot be written \(Permission denied\)"):
        check_writable(tmp_path / "share.json")
