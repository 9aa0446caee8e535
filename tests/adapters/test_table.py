"""A hospital's own table: every rule by hand, and all of them together against a slow reading row by row."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.adapters.column_map import ColumnMap, read_column_map
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.table import import_table
from polyhead.errors import SourceError

SPLITS = ("train", "val", "test")
ALL = Options(views="all")


def write(root: Path, table: str | bytes, images: Sequence[str] = (), name: str = "labels.csv") -> None:
    """Write a table, and empty files as its images: importing opens none of them."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(table.encode() if isinstance(table, str) else table)
    for image in images:
        (root / image).parent.mkdir(parents=True, exist_ok=True)
        (root / image).touch()


def column_map(root: Path, text: str) -> ColumnMap:
    path = root / "columns.toml"
    path.write_text(text)
    return read_column_map(path)


def cells(root: Path, values: Sequence[str], toml: str, options: Options = ALL, header: str = "x") -> Imported:
    """Import a table of one image for each line of cells, of which the first three are in train, val and test."""
    rows = [f"{place}.png,p{place},{SPLITS[place % 3]},{value}" for place, value in enumerate(values)]
    write(
        root, "\n".join([f"image,patient_id,split,{header}", *rows]), [f"{place}.png" for place in range(len(values))]
    )
    return import_table(root, options, column_map(root, toml))


def refusal(root: Path, toml: str, options: Options = ALL) -> str:
    with pytest.raises(SourceError) as problem:
        import_table(root, options, column_map(root, toml))
    return str(problem.value)


def test_a_table_with_our_column_names_needs_no_map(tmp_path: Path) -> None:
    write(
        tmp_path,
        "image,patient_id,split,view,Edema,ward\n"
        "a.png,007,Training,PA,1.0,A3\nb.png,7,valid,ap,no,A4\nc.png,7.0,TEST,PA,,A5\nd.png,007,train,LL,1,A3\n",
        ["a.png", "b.png", "c.png", "d.png"],
    )
    imported = import_table(tmp_path, Options(), ColumnMap())
    assert imported.frame.columns == ["image", "patient_id", "split", "view", "Edema"]
    assert imported.frame.rows() == [
        ("a.png", "007", "train", "PA", 1),
        ("b.png", "7", "val", "ap", 0),
        ("c.png", "7.0", "test", "PA", None),
    ]
    assert imported.frame["Edema"].dtype == pl.Int8
    assert imported.images == tmp_path
    assert imported.notes == (
        "Images left out because they are not frontal views: 1.",
        "Cells that are empty and became blank: 1.",
        "Columns not used: ward.",
    )
    assert imported.choices == {
        "adapter": "table",
        "uncertain": "blank",
        "not_mentioned": "blank",
        "views": "frontal",
        "split": "the table's",
        "validation": "the table's",
        "finding Edema": "recognised",
    }


def test_columns_are_found_under_their_own_names(tmp_path: Path) -> None:
    write(
        tmp_path,
        "\ufeffpid;file;year;fold;pos;gender;years;exam;image;h\r\n"
        "1;a;2020;A;PA;F;40;s1;zz;ja\r\n2;b;2021;B;AP;M;;s2;zz;nein\r\n3;c;2021;C;PA;F;50;s3;zz;nein\r\n",
        ["2020/a.dcm.png", "2021/b.dcm.png", "2021/c.dcm.png"],
    )
    toml = (
        'image = "{year}/{file}.dcm.png"\npatient_id = "pid"\nsplit = "fold"\nview = "pos"\nsex = "gender"\n'
        'age = "years"\nstudy_id = "exam"\n[split_values]\na = "train"\nb = "val"\nc = "test"\n'
        '[labels]\npositive = ["Ja"]\nnegative = ["NEIN"]\n[findings]\n"Enlarged Heart" = "h"\n'
    )
    imported = import_table(tmp_path, Options(), column_map(tmp_path, toml))
    assert imported.frame.columns == [
        *("image", "patient_id", "split", "view", "sex", "age", "study_id", "Enlarged Heart")
    ]
    assert imported.frame.rows() == [
        ("2020/a.dcm.png", "1", "train", "PA", "F", "40", "s1", 1),
        ("2021/b.dcm.png", "2", "val", "AP", "M", None, "s2", 0),
        ("2021/c.dcm.png", "3", "test", "PA", "F", "50", "s3", 0),
    ]


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        *((cell, 1) for cell in ("1", "1.0", "yes", "Y", " TRUE ", "True", "present", "Positive")),
        *((cell, 0) for cell in ("0", "0.0", "no", "N", "false", "FALSE", "absent", "negative")),
        *((cell, None) for cell in ("-1", "-1.0", "?", "Uncertain", "", "NA", "nan", "n/a", "NULL", "unknown")),
    ],
)
def test_usual_spellings_are_understood(cell: str, label: int | None, tmp_path: Path) -> None:
    assert cells(tmp_path, ["1", "0", cell], "").frame["x"].to_list() == [1, 0, label]


@pytest.mark.parametrize("cell", ["1.00", "2", "ja", "o", "O", "l", "F", "t", "maybe", "-", ".", "True positive"])
def test_any_other_spelling_is_refused_with_its_place(cell: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as problem:
        cells(tmp_path, ["1", "0", cell], '[findings]\nx = "x"')
    assert f"labels.csv, line 4, column 'x': {cell!r} is in no list of spellings." in str(problem.value)
    assert "under [labels] of the map" in str(problem.value)


@pytest.mark.parametrize(("policy", "label"), [("blank", None), ("negative", 0), ("positive", 1)])
def test_policies_settle_uncertain_and_empty_cells_apart(policy: str, label: int | None, tmp_path: Path) -> None:
    values = ["1", "0", "-1", "", "na"]
    unsure = cells(tmp_path, values, "", Options(views="all", uncertain=policy))
    assert unsure.frame["x"].to_list() == [1, 0, label, None, None]
    assert f"Cells that are uncertain and became {policy}: 1." in unsure.notes
    assert unsure.choices["uncertain"] == policy
    silent = cells(tmp_path, values, "", Options(views="all", not_mentioned=policy))
    assert silent.frame["x"].to_list() == [1, 0, None, label, None]
    assert f"Cells that are empty and became {policy}: 1." in silent.notes
    assert silent.choices["not_mentioned"] == policy


def test_a_list_takes_the_place_of_the_built_in_one_and_of_it_alone(tmp_path: Path) -> None:
    toml = '[labels]\npositive = ["J", "-1"]\n'
    assert cells(tmp_path, ["j", "no", "-1"], toml).frame["x"].to_list() == [1, 0, 1]
    with pytest.raises(SourceError, match="line 4, column 'x': 'yes' is in no list"):
        cells(tmp_path, ["j", "no", "yes"], toml + '[findings]\nx = "x"')


def test_an_empty_cell_stays_understood_and_may_be_given_a_meaning(tmp_path: Path) -> None:
    assert cells(tmp_path, ["1", "0", ""], '[labels]\nnot_annotated = ["9"]').frame["x"].to_list() == [1, 0, None]
    options = Options(views="all", not_mentioned="positive")
    given = cells(tmp_path, ["1", "0", ""], '[labels]\nnegative = ["0", ""]', options)
    assert given.frame["x"].to_list() == [1, 0, 0]


def test_sides_are_one_finding_or_two(tmp_path: Path) -> None:
    pairs = {
        "1,1": 1,
        "1,0": 1,
        "0,1": 1,
        "0,0": 0,
        "0,": None,
        ",0": None,
        ",": None,
        "1,": 1,
        ",1": 1,
        "-1,0": None,
        "-1,1": 1,
    }
    toml = '[findings]\nEffusion = ["l", "r"]\n"Effusion Left" = "l"\n"Effusion Right" = "r"\n'
    imported = cells(tmp_path, list(pairs), toml, header="l,r")
    assert imported.frame["Effusion"].to_list() == list(pairs.values())
    value = {"1": 1, "0": 0, "": None, "-1": None}
    assert imported.frame["Effusion Left"].to_list() == [value[pair.split(",")[0]] for pair in pairs]
    assert imported.frame["Effusion Right"].to_list() == [value[pair.split(",")[1]] for pair in pairs]
    assert imported.choices["finding Effusion"] == "any of l, r"
    assert imported.choices["finding Effusion Left"] == "column l"


def test_an_uncertain_side_follows_the_policy_before_sides_are_joined(tmp_path: Path) -> None:
    toml = '[findings]\nEffusion = ["l", "r"]\n'
    options = Options(views="all", uncertain="negative", not_mentioned="negative")
    imported = cells(tmp_path, ["-1,0", ",0", "na,0"], toml, options, header="l,r")
    assert imported.frame["Effusion"].to_list() == [0, 0, None]


def test_grades_have_spellings_of_their_own(tmp_path: Path) -> None:
    graded = 'Congestion = { column = "grade", positive = ["2", "3"], negative = ["0", "1"] }'
    imported = cells(tmp_path, ["2,1", "1,0", "3,no", ",yes"], f'[findings]\n{graded}\nx = "x"', header="grade,x")
    assert imported.frame["Congestion"].to_list() == [1, 0, 1, None]
    assert imported.frame["x"].to_list() == [1, 0, 0, 1]
    assert imported.choices["finding Congestion"] == "column grade; positive if 2 or 3; negative if 0 or 1"
    assert "finding x" not in imported.choices
    with pytest.raises(SourceError, match="line 2, column 'grade': 'yes' is in no list"):
        cells(tmp_path, ["yes,1", "1,0", "1,0"], f"[findings]\n{graded}", header="grade,x")


def test_findings_are_recognised_by_their_cells_alone(tmp_path: Path) -> None:
    header = "Edema,ward,empty,Sex,grade,=1"
    imported = cells(tmp_path, ["1,A,,0,2,1", "0,1,,1,1,1", ",0,na,0,0,1"], "", header=header)
    assert imported.frame.columns == ["image", "patient_id", "split", "Edema"]
    assert "Columns not used: ward, empty, Sex, grade, =1." in imported.notes


def test_many_unused_columns_are_counted(tmp_path: Path) -> None:
    header = "x," + ",".join(f"c{place}" for place in range(25))
    imported = cells(tmp_path, ["1" + ",z" * 25] * 3, "", header=header)
    assert imported.notes[-1].endswith("c18, c19 and 5 more.")


def test_without_a_split_patients_are_dealt(tmp_path: Path) -> None:
    rows = [f"{place}.png,p{place // 3},{place % 2}" for place in range(600)]
    write(tmp_path, "\n".join(["image,patient_id,x", *rows]), [f"{place}.png" for place in range(600)])
    imported = import_table(tmp_path, ALL, ColumnMap())
    splits = imported.frame.group_by("patient_id").agg(pl.col("split").unique())
    assert set(splits["split"].list.len()) == {1}
    patients = dict(splits.explode("split").group_by("split").len().iter_rows())
    assert 120 < patients["train"] < 160
    assert 8 < patients["val"] < 35
    assert 25 < patients["test"] < 60
    assert imported.choices["split"] == "train 0.7, val 0.1, test 0.2 of the patients, by hash with seed 0"
    assert import_table(tmp_path, ALL, ColumnMap()).frame.equals(imported.frame)
    assert not import_table(tmp_path, Options(views="all", seed=1), ColumnMap()).frame.equals(imported.frame)


def test_too_few_patients_for_a_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "image,patient_id,x\na.png,1,1\n", ["a.png"])
    assert "1 patients are too few" in refusal(tmp_path, "")


def test_a_missing_validation_comes_from_the_training_patients(tmp_path: Path) -> None:
    rows = [f"{place}.png,p{place // 2},{'train' if place < 400 else 'test'},1" for place in range(500)]
    write(tmp_path, "\n".join(["image,patient_id,split,x", *rows]), [f"{place}.png" for place in range(500)])
    imported = import_table(tmp_path, ALL, ColumnMap())
    val = imported.frame.filter(split="val")
    assert 10 < val.height < 80
    assert set(val["patient_id"]).isdisjoint(imported.frame.filter(split="train")["patient_id"])
    assert imported.frame.filter(split="test").height == 100
    assert imported.choices["split"] == "the table's"
    assert imported.choices["validation"] == "0.1 of the training patients, by hash with seed 0"
    assert f"Training images that became validation, which the table has not: {val.height}." in imported.notes


def test_frontal_views_are_those_the_map_names(tmp_path: Path) -> None:
    rows = "\n".join(f"{place}.png,{place},train,{view},1" for place, view in enumerate(["front", "FRONT ", "PA", ""]))
    write(tmp_path, "image,patient_id,split,view,x\n" + rows, [f"{place}.png" for place in range(4)])
    imported = import_table(tmp_path, Options(), column_map(tmp_path, 'frontal_views = ["Front"]'))
    assert imported.frame["image"].to_list() == ["0.png", "1.png"]
    assert imported.notes[:2] == (
        "Images left out because they have no view position: 1.",
        "Images left out because they are not frontal views: 1.",
    )
    assert import_table(tmp_path, ALL, column_map(tmp_path, "")).frame.height == 4


def test_where_no_view_is_frontal_the_first_are_shown(tmp_path: Path) -> None:
    write(tmp_path, "image,patient_id,split,view,x\na.png,1,train,links,1\n", ["a.png"])
    message = refusal(tmp_path, "", Options())
    assert "labels.csv, line 2, column 'view': 'links' is no frontal view." in message
    assert "frontal_views" in message


def test_a_table_without_views_keeps_every_image_and_says_so(tmp_path: Path) -> None:
    imported = cells(tmp_path, ["1", "0", "1"], "", Options())
    assert "No column says which views these are" in imported.notes[0]
    assert imported.choices["views"] == "all, the table does not say which"


def test_images_that_are_not_there_are_a_choice(tmp_path: Path) -> None:
    cells(tmp_path, ["1", "0", "1", "0"], "")
    (tmp_path / "3.png").unlink()
    assert "1 of 4 images are not on disk, first 3.png" in refusal(tmp_path, "")
    kept = import_table(tmp_path, Options(views="all", allow_missing=True), ColumnMap())
    assert kept.frame["image"].to_list() == ["0.png", "1.png", "2.png"]
    assert "Images left out because they are not on disk: 1 of 4." in kept.notes


def test_images_that_are_not_there_are_named_with_their_place_and_the_maps_pattern(tmp_path: Path) -> None:
    write(tmp_path, "year,file,patient_id,split,x\n20,a,1,train,1\n20,b,2,val,0\n", ["20/a.png"])
    message = refusal(tmp_path, 'image = "{year}/{file}.png"')
    assert "1 of 2 images are not on disk, first 20/b.png." in message
    assert f"{tmp_path / 'labels.csv'}, line 3, column 'year + file'" in message
    assert f"{tmp_path / 'columns.toml'} has image = '{{year}}/{{file}}.png'" in message
    assert "--allow-missing" in message
    assert "download" not in message
    write(tmp_path, "image,patient_id,split,x\na,1,train,1\n")
    with pytest.raises(SourceError, match=r"line 2, column 'image'; the map \(--map\) may have image = '") as problem:
        import_table(tmp_path, ALL, ColumnMap())
    assert "--allow-missing" not in str(problem.value)


def test_paths_that_windows_wrote_are_read_with_slashes(tmp_path: Path) -> None:
    table = "image,patient_id,split,x\nBilder\\1\\a.png,1,train,1\nBilder/b.png,2,val,0\n"
    write(tmp_path, table, ["Bilder/1/a.png", "Bilder/b.png"])
    assert import_table(tmp_path, ALL, ColumnMap()).frame["image"].to_list() == ["Bilder/1/a.png", "Bilder/b.png"]
    write(tmp_path, table + "Bilder\\b.png,3,test,1\n")
    assert "line 4, column 'image': 'Bilder/b.png' stands on an earlier line too." in refusal(tmp_path, "")


def test_labels_of_rows_that_are_left_out_are_not_judged(tmp_path: Path) -> None:
    rows = "a.png,1,train,PA,1\nb.png,2,train,LL,see report\nc.png,3,test,PA,0\n"
    write(tmp_path, "image,patient_id,split,view,x\n" + rows, ["a.png", "b.png", "c.png"])
    imported = import_table(tmp_path, Options(), column_map(tmp_path, '[findings]\nx = "x"'))
    assert imported.frame["x"].to_list() == [1, 0]


HEADER = "image,patient_id,split,view,x\n"
ROWS = "a.png,1,train,PA,1\nb.png,2,val,PA,0\nc.png,3,test,PA,1\n"


@pytest.mark.parametrize(
    ("table", "toml", "message"),
    [
        (HEADER + ROWS, 'patient_id = "pit"', "columns.toml, key 'patient_id': no column 'pit' in "),
        (HEADER + ROWS, 'view = "veiw"', "closest: view."),
        (HEADER + ROWS, 'image = "{flie}.png"', "key 'image': no column 'flie' in "),
        (HEADER + ROWS, 'image = "{image"', "key 'image': found '{image'. Put each column into one pair of braces"),
        (HEADER + ROWS, 'image = "{}.png"', "key 'image': no column ''"),
        (HEADER + ROWS, '[findings]\nEdema = "oedema"', "key 'findings.Edema': no column 'oedema'"),
        (HEADER + ROWS, '[findings]\nEdema = ["x", "y"]', "key 'findings.Edema': no column 'y'"),
        (HEADER + ROWS, "[findings]\n", "no finding. Name the columns under [findings]"),
        (HEADER.replace(",x", ",ward") + ROWS.replace("1\n", "A\n"), "", "no finding. Name the columns"),
        (HEADER.replace("patient_id", "pid") + ROWS, "", "no column 'patient_id'; known: image, pid"),
        (HEADER.replace("image", "img") + ROWS, "", "line 1: no column 'image'; closest: img"),
        (HEADER, "", "has a header and no rows"),
        ("", "", "labels.csv: is empty"),
        (HEADER + ROWS + "d.png,4,train,PA\n", "", "line 5: 4 fields, but the header has 5"),
        (HEADER + ROWS + ",4,train,PA,1\n", "", "line 5, column 'image': nothing names the image."),
        (HEADER + ROWS + "d.png,,train,PA,1\n", "", "line 5, column 'patient_id': nothing names the patient."),
        (HEADER + ROWS + "a.png,1,train,PA,1\n", "", "line 5, column 'image': 'a.png' stands on an earlier line too."),
        (HEADER + ROWS + "d.png,4,fold 1,PA,1\n", "", "line 5, column 'split': 'fold 1' is no split."),
        (HEADER + ROWS + "d.png,4,,PA,1\n", "", "line 5, column 'split': nothing is no split."),
        (HEADER + ROWS + "../d.png,4,train,PA,1\n", "", "line 5, column 'image': '../d.png' leads out of ROOT."),
        (HEADER + ROWS + "x/../../d.png,4,train,PA,1\n", "", "leads out of ROOT"),
        (HEADER + ROWS + "/etc/passwd,4,train,PA,1\n", "", "'/etc/passwd' leads out of ROOT"),
        (HEADER + ROWS + "C:\\d.png,4,train,PA,1\n", "", "leads out of ROOT"),
        (HEADER + ROWS + "..,4,train,PA,1\n", 'image = "{image}/{image}"', "'../..' leads out of ROOT"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(table: str, toml: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, table, ["a.png", "b.png", "c.png", "d.png"])
    assert message in refusal(tmp_path, toml, Options())


def test_a_column_is_called_what_the_hospital_calls_it(tmp_path: Path) -> None:
    write(tmp_path, "file,pid,x\na.png,1,1\nb.png,,0\n", ["a.png", "b.png"])
    message = refusal(tmp_path, 'image = "file"\npatient_id = "pid"')
    assert "line 3, column 'pid': nothing names the patient." in message


def test_many_bad_cells_are_counted_and_the_first_lines_shown(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as problem:
        cells(tmp_path, ["1,0", "0,0", *["maybe,5"] * 6], '[findings]\nx = "x"\ny = ["y", "x"]', header="x,y")
    message = str(problem.value)
    assert message.count("is in no list") == 5
    assert "and 7 cells more" in message
    assert message.index("line 4, column 'x': 'maybe'") < message.index("line 6, column ")


def test_messages_show_no_more_than_place_and_value(tmp_path: Path) -> None:
    canary = "Erika Mustermann"
    report = "The heart is enlarged, " * 30
    rows = f"a.png,{canary},train,PA,{canary},{report.replace(',', ';')}\n"
    write(tmp_path, "image,patient_id,split,view,name,x\n" + rows, ["a.png"])
    message = refusal(tmp_path, '[findings]\nx = "x"', Options())
    assert "line 2, column 'x': 'The heart is enlarged" in message
    assert canary not in message
    assert len(message) < 400


def test_the_table_is_the_only_one_or_named(tmp_path: Path) -> None:
    write(tmp_path, HEADER + ROWS, ["a.png", "b.png", "c.png"], "labels.CSV")
    assert import_table(tmp_path, ALL, ColumnMap()).frame.height == 3
    write(tmp_path, HEADER + ROWS, name="other.csv")
    assert "2 CSV files: labels.CSV, other.csv. Name the one to read" in refusal(tmp_path, "")
    assert import_table(tmp_path, ALL, column_map(tmp_path, 'table = "other.csv"')).frame.height == 3
    assert "absent.csv: cannot be read" in refusal(tmp_path, 'table = "absent.csv"')
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="none: no CSV file"):
        import_table(tmp_path / "none", ALL, ColumnMap())
    with pytest.raises(SourceError, match="is not a folder"):
        import_table(tmp_path / "other.csv", ALL, ColumnMap())


def test_a_table_that_a_link_leads_out_to_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", HEADER + ROWS)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.csv").symlink_to(tmp_path / "elsewhere/labels.csv")
    assert "'link.csv' leads out of" in refusal(root, 'table = "link.csv"')


NAMED = {"": "", "Ja": "1", "NEIN": "0", "?": "-1", " x ": "na"}
VALUE = {"1": 1, "0": 0, "na": None}


def oracle(
    rows: Sequence[Mapping[str, str]], toml: Mapping[str, Sequence[str]], options: Options
) -> list[list[object]]:
    """Read a table as a patient clerk would: row by row, cell by cell."""
    policy = {"blank": None, "negative": 0, "positive": 1}
    expected: list[list[object]] = []
    for row in rows:
        if options.views == "frontal" and row["pos"].strip().lower() not in ("pa", "ap", "frontal"):
            continue
        line: list[object] = [row["file"] + ".png", row["pid"].strip(), row["pos"].strip() or None]
        for columns in toml.values():
            labels = []
            for column in columns:
                code = NAMED[row[column]]
                if code == "":
                    labels.append(policy[options.not_mentioned])
                elif code == "-1":
                    labels.append(policy[options.uncertain])
                else:
                    labels.append(VALUE[code])
            line.append(1 if 1 in labels else 0 if all(label == 0 for label in labels) else None)
        expected.append(line)
    return expected


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[dict[str, str]], dict[str, list[str]]]:
    columns = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    patients = st.sampled_from(["7", "007", "7.0", " 8 ", "Ä", '"9"', "a,b"])
    views = st.sampled_from(["PA", "ap ", "LL", "", "Frontal"])
    row = st.fixed_dictionaries({"pid": patients, "pos": views, **dict.fromkeys(columns, st.sampled_from(list(NAMED)))})
    rows = draw(st.lists(row, min_size=1, max_size=8))
    numbered = [{"file": f"i{place}", **one} for place, one in enumerate(rows)]
    findings = st.lists(st.sampled_from(columns), min_size=1, max_size=3, unique=True)
    return numbered, draw(st.dictionaries(st.sampled_from(["F", "G", "H 2"]), findings, min_size=1))


@given(
    table=tables(),
    separator=st.sampled_from(",;\t"),
    policies=st.tuples(*[st.sampled_from(["blank", "negative", "positive"])] * 2),
    views=st.sampled_from(["frontal", "all"]),
)
def test_any_table_is_read_as_row_by_row(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[list[dict[str, str]], dict[str, list[str]]],
    separator: str,
    policies: tuple[str, str],
    views: str,
) -> None:
    root = tmp_path_factory.mktemp("table")
    rows, findings = table
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], "split"], delimiter=separator)
    writer.writeheader()
    writer.writerows(row | {"split": "test"} for row in rows)
    write(root, text.getvalue(), [row["file"] + ".png" for row in rows])
    lines = [f'"{name}" = {columns}' for name, columns in findings.items()]
    toml = 'image = "{file}.png"\npatient_id = "pid"\nview = "pos"\n[labels]\n'
    toml += 'positive = ["ja"]\nnegative = ["nein"]\nnot_annotated = ["X"]\n[findings]\n' + "\n".join(lines)
    options = Options(uncertain=policies[0], not_mentioned=policies[1], views=views)  # type: ignore[arg-type]
    expected = oracle(rows, findings, options)
    if expected:
        imported = import_table(root, options, column_map(root, toml))
        assert [list(row) for row in imported.frame.drop("split").rows()] == expected
        assert imported.frame.columns == ["image", "patient_id", "split", "view", *findings]
    else:
        assert "is no frontal view" in refusal(root, toml, options)
