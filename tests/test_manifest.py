"""Manifests: every way in which a table goes wrong, and the limits a study sets."""

import contextlib
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import ManifestError
from polyhead.manifest import (
    Manifest,
    label_counts,
    limit_training,
    read_manifest,
    select_findings,
    shuffle_training_labels,
    take_shard,
    write_manifest,
)
from polyhead.site_file import SiteFile

HEADER = "image,patient_id,split,view,Edema,Mass\n"
ROWS = "a.png,1,train,PA,1,0\nb.png,2,val,,,1\nc.png,03,test,AP,0.0,1.0\n"


def read(tmp_path: Path, text: str | bytes) -> Manifest:
    path = tmp_path / "manifest.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(path)


def refusal(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(ManifestError) as problem:
        read(tmp_path, text)
    return str(problem.value)


def test_labels_are_one_zero_or_blank_and_ids_stay_text(tmp_path: Path) -> None:
    manifest = read(tmp_path, HEADER + ROWS)
    assert manifest.findings == ("Edema", "Mass")
    assert manifest.frame["Edema"].to_list() == [1, None, 0]
    assert manifest.frame["Mass"].to_list() == [0, 1, 1]
    assert manifest.frame["patient_id"].to_list() == ["1", "2", "03"]


def test_ids_that_look_like_one_number_are_different_patients(tmp_path: Path) -> None:
    rows = "a.png,7,train,,1,0\nb.png,7.0,val,,0,1\nc.png,007,test,,1,1\n"
    assert read(tmp_path, HEADER + rows).frame["patient_id"].n_unique() == 3


@pytest.mark.parametrize("encode", ["\ufeff{}", "{};", "{}crlf", "{}tab"])
def test_dialects_give_the_same_table(encode: str, tmp_path: Path) -> None:
    plain = read(tmp_path, HEADER + ROWS).frame
    text = HEADER + ROWS
    if encode.startswith("\ufeff"):
        text = "\ufeff" + text
    elif encode.endswith(";"):
        text = text.replace(",", ";")
    elif encode.endswith("crlf"):
        text = text.replace("\n", "\r\n")
    else:
        text = text.replace(",", "\t")
    assert read(tmp_path, text).frame.equals(plain)


def test_latin_1_is_read(tmp_path: Path) -> None:
    manifest = read(tmp_path, (HEADER + ROWS).replace("Edema", "Ödem").encode("latin-1"))
    assert manifest.findings == ("Ödem", "Mass")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,split,Edema\na,train,1\n", "no column 'patient_id'; known: Edema, image, split"),
        ("image,patient_id,spilt,Edema\na,1,train,1\n", "no column 'split'; closest: spilt"),
        (HEADER.replace("Mass", "Edema") + ROWS, "line 1: column 'Edema' stands 2 times"),
        (HEADER.replace("Mass", "") + ROWS, "line 1: column 6 has no name"),
        ("image,patient_id,split\na.png,1,train\n", "no finding column"),
        ("\ufeff", "line 1: column 1 has no name"),
        (HEADER.replace("Mass", "mean") + ROWS, "column 'mean' cannot be a finding"),
        (HEADER.replace("Mass", "Sex") + ROWS, "column 'Sex' cannot be a finding"),
        (HEADER.replace("Mass", "=1+1") + ROWS, "column '=1+1' cannot be a finding"),
        (HEADER.replace("Mass", "*") + ROWS, "column '*' cannot be a finding"),
        (HEADER.replace("Mass", "A\x1b[2J") + ROWS, "cannot be a finding"),
        (HEADER.replace("Mass", " Edema ") + ROWS, "column 'Edema' stands 2 times"),
        (HEADER + ROWS + "d\x1b[2J.png,4,train,PA,1,0\n", "line 5, column 'image': 'd\\x1b[2J.png' holds control"),
        (HEADER + ROWS + "d.png,4,train,PA,1\n", "line 5: 5 fields, but the header has 6"),
        (HEADER + ROWS + "d.png,4,train,PA,1,0,1\n", "line 5: 7 fields, but the header has 6"),
        (HEADER + "\n" + ROWS, "line 2: 0 fields"),
        (HEADER + ROWS + 'd.png,4,train,"P\nA",1,0\n', "line 5: a quoted field runs over the end of the line"),
        (HEADER + ROWS + 'd.png,4,train,"PA,1,0\n', "not valid CSV"),
        (HEADER + ROWS + "d.png,4,train,PA,-1,0\n", "line 5, column 'Edema': '-1'. Allowed: 1, 0 or blank"),
        (HEADER + ROWS + "d.png,4,train,PA,yes,0\n", "line 5, column 'Edema': 'yes'"),
        (HEADER + ROWS + "d.png,4,valid,PA,1,0\n", "line 5, column 'split': 'valid'. Allowed: train, val, test"),
        (HEADER + ROWS + "d.png,4,,PA,1,0\n", "line 5, column 'split': blank"),
        (HEADER + ROWS + "d.png,,train,PA,1,0\n", "line 5, column 'patient_id': blank"),
        (HEADER + ROWS + ",4,train,PA,1,0\n", "line 5, column 'image': blank"),
        (HEADER + ROWS + "d.png,03,train,PA,1,0\n", "1 patients are in more than one split, first 03 (test+train)"),
        (HEADER + ROWS + "a.png,4,train,PA,1,0\n", "line 5, column 'image': 'a.png' stands on an earlier line too"),
        (HEADER + ROWS.replace(",val,", ",train,"), "no image in 'val'"),
        (HEADER + ROWS + "../d.png,4,train,PA,1,0\n", "line 5, column 'image': '../d.png' leads out of"),
        (HEADER + ROWS + "x/../../d.png,4,train,PA,1,0\n", "leads out of"),
        (HEADER + ROWS + "/etc/passwd,4,train,PA,1,0\n", "leads out of"),
        (HEADER + ROWS + "C:\\d.png,4,train,PA,1,0\n", "leads out of"),
        ((HEADER + ROWS).encode("utf-16"), "is not text"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, text)


def test_several_problems_are_said_together_and_many_are_counted(tmp_path: Path) -> None:
    bad = "".join(f"x{index}.png,{index + 10},train,PA,2,0\n" for index in range(12))
    message = refusal(tmp_path, HEADER + ROWS + bad)
    assert message.count("column 'Edema': '2'") == 8
    assert message.endswith("and 4 more problems")


def test_a_stray_quote_is_read_as_it_stands(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + ROWS + 'd.png,4"5,train,PA,1,0\n').frame["patient_id"][3] == '4"5'


def test_a_finding_may_be_called_line(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER.replace("Mass", "line") + ROWS).findings == ("Edema", "line")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent\.csv: cannot be read"):
        read_manifest(tmp_path / "absent.csv")


@given(raw=st.binary(max_size=300))
def test_bytes_of_any_kind_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "manifest.csv"
    path.write_bytes(raw)
    with pytest.raises(ManifestError):
        read_manifest(path)


@given(mutation=st.tuples(st.integers(0, len(HEADER + ROWS) - 1), st.binary(max_size=2)))
def test_a_mutated_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, mutation: tuple[int, bytes]
) -> None:
    place, inserted = mutation
    raw = (HEADER + ROWS).encode()
    path = tmp_path_factory.mktemp("fuzz") / "manifest.csv"
    path.write_bytes(raw[:place] + inserted + raw[place + 1 :])
    with contextlib.suppress(ManifestError):
        read_manifest(path)


def test_writing_and_reading_gives_the_table_back(tmp_path: Path) -> None:
    manifest = read(tmp_path, HEADER + ROWS)
    again = write_manifest(manifest.frame, tmp_path / "copy/manifest.csv")
    assert again.frame.equals(manifest.frame)
    assert again.findings == manifest.findings


def test_a_faulty_table_is_not_written(tmp_path: Path) -> None:
    site = tmp_path / "site"
    good = read(tmp_path, HEADER + ROWS)
    torn = good.frame.with_columns(patient_id=pl.lit("1"))
    with pytest.raises(ManifestError) as problem:
        write_manifest(torn, site / "manifest.csv", SiteFile(source={"a": "b"}))
    assert str(problem.value).startswith(f"{site / 'manifest.csv'}, column 'split': 1 patients are in more than one")
    assert list(site.iterdir()) == []


def test_a_faulty_table_leaves_what_was_there_before(tmp_path: Path) -> None:
    good = read(tmp_path, HEADER + ROWS)
    site = tmp_path / "site"
    write_manifest(good.frame, site / "manifest.csv", SiteFile(tmp_path, {"uncertain": "blank"}))
    before = {path.name: path.read_bytes() for path in site.iterdir()}
    assert set(before) == {"manifest.csv", "site.toml"}
    for faulty in (good.frame.with_columns(patient_id=pl.lit("1")), good.frame.with_columns(image=pl.lit("a\nb"))):
        with pytest.raises(ManifestError, match=r"site/manifest\.csv, "):
            write_manifest(faulty, site / "manifest.csv", SiteFile())
        assert {path.name: path.read_bytes() for path in site.iterdir()} == before


def test_a_written_site_knows_where_its_images_are(tmp_path: Path) -> None:
    frame = read(tmp_path, HEADER + ROWS).frame
    assert write_manifest(frame, tmp_path / "manifest.csv").root == tmp_path
    written = write_manifest(frame, tmp_path / "manifest.csv", SiteFile(Path("pictures")))
    assert written.root == tmp_path / "pictures"
    assert written.path == tmp_path / "manifest.csv"
    assert read_manifest(written.path).root == written.root


def test_findings_are_selected_in_the_order_asked_for(tmp_path: Path) -> None:
    manifest = read(tmp_path, HEADER + ROWS)
    assert select_findings(manifest, ["Mass", "Edema"]).findings == ("Mass", "Edema")
    with pytest.raises(ManifestError, match="no finding 'Masss'; closest: Mass"):
        select_findings(manifest, ["Masss"])


def test_counts_by_hand(tmp_path: Path) -> None:
    counts = label_counts(read(tmp_path, HEADER + ROWS + "d.png,1,train,PA,,0\n"))
    train = counts.filter(split="train").select("finding", "positives", "negatives", "blank", "images", "patients")
    assert train.rows() == [("Edema", 1, 0, 1, 2, 1), ("Mass", 0, 2, 0, 2, 1)]


def many(patients: int) -> Manifest:
    """Three images for each patient; every tenth patient in test, every tenth in val."""
    splits = ["test", "val", *["train"] * 8]
    rows = [
        {"image": f"{patient}-{image}.png", "patient_id": str(patient), "split": splits[patient % 10], "Edema": 1}
        for patient in range(patients)
        for image in range(3)
    ]
    return Manifest(Path("manifest.csv"), pl.DataFrame(rows), ("Edema",), Path())


def test_shards_are_disjoint_complete_and_whole_patients() -> None:
    manifest = many(200)
    shards = [take_shard(manifest, index, 3).frame for index in (1, 2, 3)]
    assert sum(shard.height for shard in shards) == manifest.frame.height
    assert sum(shard["patient_id"].n_unique() for shard in shards) == 200
    assert all(150 < shard.height < 250 for shard in shards)


@pytest.mark.parametrize("most", [1, 30, 31, 32, 400, 10_000])
def test_the_limit_holds_for_training_images_of_whole_patients(most: int) -> None:
    manifest = many(200)
    limited = limit_training(manifest, most)
    train = limited.split("train")
    assert train.height == min(most - most % 3, manifest.split("train").height)
    assert set(train.group_by("patient_id").len()["len"]) <= {3}
    assert limited.split("test").equals(manifest.split("test"))
    assert limited.split("val").equals(manifest.split("val"))


def test_shuffled_labels_stay_together_and_only_training_images_get_others() -> None:
    manifest = many(200)
    pairs = pl.col("image").hash(7) % 5
    frame = manifest.frame.with_columns(
        Edema=pl.when(pairs != 4).then(pairs % 2), Mass=pl.when(pairs != 3).then(pairs // 2)
    )
    manifest = Manifest(manifest.path, frame, ("Edema", "Mass"), manifest.root)
    shuffled = shuffle_training_labels(manifest, "a")
    rest, labels = manifest.frame.drop("Edema", "Mass"), ["Edema", "Mass"]
    assert shuffled.frame.drop(labels).equals(rest)
    for split in ("val", "test"):
        assert shuffled.split(split).equals(manifest.split(split))
    before, after = manifest.split("train"), shuffled.split("train")
    assert before.group_by(labels).len().sort(labels).equals(after.group_by(labels).len().sort(labels))
    same = (before["Edema"].eq_missing(after["Edema"]) & before["Mass"].eq_missing(after["Mass"])).mean()
    assert same < 0.5  # By chance a quarter or so.
    other = shuffle_training_labels(manifest, "b")
    assert not other.frame.equals(shuffled.frame)
    turned = Manifest(manifest.path, manifest.frame.reverse(), manifest.findings, manifest.root)
    assert shuffle_training_labels(turned, "a").frame.equals(shuffled.frame.reverse())


def test_row_order_changes_neither_shard_nor_limit() -> None:
    manifest = many(100)
    turned = Manifest(manifest.path, manifest.frame.reverse(), manifest.findings, manifest.root)
    for change in (lambda m: take_shard(m, 1, 2), lambda m: limit_training(m, 60)):
        assert set(change(turned).frame["image"]) == set(change(manifest).frame["image"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("site", "sizes", "findings"),
    [
        ("nih-a", (684, 101, 215), 9),
        ("nih-b", (705, 41, 165), 13),
        ("guangzhou", (4758, 448, 618), 4),
        ("hannover", (191, 16, 36), 7),
    ],
)
def test_real_manifests_are_what_their_readme_says(real_data, site, sizes, findings) -> None:  # type: ignore[no-untyped-def]
    manifest = read_manifest(real_data(site))
    assert tuple(manifest.split(split).height for split in ("train", "val", "test")) == sizes
    assert len(manifest.findings) == findings
