"""From a folder to a site: what is written, what is kept, and what the command says."""

import io
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from polyhead.adapters import importing
from polyhead.adapters.imported import Imported, Options
from polyhead.adapters.importing import PUBLIC, import_site, print_import
from polyhead.errors import PolyheadError, SourceError, UsageError
from polyhead.manifest import read_manifest
from polyhead.site_file import SiteFile, read_site_file
from tests.adapters.miniatures import MINIATURES
from tests.adapters.miniatures import OPTIONS as MINIATURE_OPTIONS

TABLE = "image,patient_id,split,Edema,[b]Mass\na/1.png,1,train,1,\na/2.png,2,val,0,1\na/3.png,3,test,?,0\n"


def source(folder: Path, table: str = TABLE) -> Path:
    """Write a table of three images."""
    (folder / "a").mkdir(parents=True)
    (folder / "labels.csv").write_text(table.replace("[b]", ""))
    for place in (1, 2, 3):
        (folder / f"a/{place}.png").touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def polyhead(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from polyhead.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return re.sub(r"[\s│]+", " ", done.stdout + done.stderr)


def test_a_site_is_a_manifest_and_a_note_and_the_source_is_left_alone(tmp_path: Path) -> None:
    root = source(tmp_path / "root")
    before = contents(root)
    manifest, imported = import_site("table", root, tmp_path / "site", Options())
    assert contents(root) == before
    assert set(contents(tmp_path / "site")) == {"manifest.csv", "site.toml"}
    assert read_manifest(tmp_path / "site/manifest.csv").frame.equals(manifest.frame)
    assert manifest.frame.select("image", "Edema", "Mass").rows() == [
        ("a/1.png", 1, None),
        ("a/2.png", 0, 1),
        ("a/3.png", None, 0),
    ]
    assert manifest.root == root
    assert read_site_file(tmp_path / "site") == SiteFile(root, imported.choices)
    assert imported.choices["uncertain"] == "blank"


@pytest.mark.parametrize(
    ("root", "site", "images"),
    [
        ("site", "site", None),
        ("site/raw", "site", 'images = "raw"'),
        ("root", "root/site", 'images = "{}/root"'),
        ("root", "elsewhere/site", 'images = "{}/root"'),
        ("sites", "site", 'images = "{}/sites"'),
    ],
)
def test_images_are_named_so_that_a_site_can_move(root: str, site: str, images: str | None, tmp_path: Path) -> None:
    source(tmp_path / root)
    manifest, _ = import_site("table", tmp_path / root, tmp_path / site, Options())
    text = (tmp_path / site / "site.toml").read_text()
    assert (images.format(tmp_path) in text) if images else ("images" not in text)
    assert all((manifest.root / image).exists() for image in manifest.frame["image"])


def test_a_relative_root_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    import_site("table", Path("root"), Path("site"), Options())
    monkeypatch.chdir("/")
    assert read_site_file(tmp_path / "site").images == tmp_path / "root"


@pytest.mark.parametrize("name", ["manifest.csv", "site.toml"])
def test_what_is_there_is_replaced_only_by_force(name: str, tmp_path: Path) -> None:
    root, site = source(tmp_path / "root"), tmp_path / "site"
    site.mkdir()
    (site / name).write_text("precious")
    with pytest.raises(UsageError, match=rf"{name}: is there already.* --force"):
        import_site("table", root, site, Options())
    assert contents(site) == {name: b"precious"}
    import_site("table", root, site, Options(), force=True)
    assert set(contents(site)) == {"manifest.csv", "site.toml"}
    assert b"precious" not in (site / name).read_bytes()


def test_the_table_itself_is_never_replaced(tmp_path: Path) -> None:
    root = source(tmp_path / "root")
    (root / "labels.csv").rename(root / "manifest.csv")
    before = contents(root)
    with pytest.raises(UsageError, match="is the table to import"):
        import_site("table", root, root, Options(), force=True)
    assert contents(root) == before


def test_a_faulty_result_leaves_nothing_or_what_was_there(tmp_path: Path) -> None:
    root, site = source(tmp_path / "root", TABLE.replace("a/2.png,2", "a/2.png,1")), tmp_path / "site"
    with pytest.raises(SourceError, match="gives no sound manifest") as problem:
        import_site("table", root, site, Options())
    assert "1 patients are in more than one split, first 1 (train+val)" in str(problem.value)
    assert contents(site) == {}
    good = source(tmp_path / "good")
    import_site("table", good, site, Options())
    before = contents(site)
    with pytest.raises(SourceError):
        import_site("table", root, site, Options(), force=True)
    assert contents(site) == before


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_adapter_gets_root_and_options(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"image": ["1", "2", "3"], "patient_id": ["1", "2", "3"], "split": ["train", "val", "test"]})
    options = Options(allow_missing=True)

    def adapter(root: Path, given: Options) -> Imported:
        assert given is options
        return Imported(frame.with_columns(Edema=1), root, {"adapter": name}, ("a note",))

    monkeypatch.setattr(importing, "PUBLIC", {**PUBLIC, name: adapter})
    manifest, imported = import_site(name, tmp_path / "root", tmp_path / "site", options)
    assert manifest.findings == ("Edema",)
    assert imported.notes == ("a note",)
    assert read_site_file(tmp_path / "site").source == {"adapter": name}


def test_what_was_imported_is_said_with_its_counts(tmp_path: Path) -> None:
    root = source(tmp_path / "root")
    manifest, imported = import_site("table", root, tmp_path / "my site", Options())
    console = Console(width=100, file=io.StringIO(), record=True)
    print_import(manifest, imported, console)
    text = re.sub(r"[\s│┃]+", " ", console.export_text())
    assert "train 1 1 " in text
    assert "Edema 1 / 0 / 0 0 / 1 / 0 0 / 0 / 1" in text
    assert "uncertain: blank" in text
    assert "note: Cells that are uncertain and became blank: 1." in text
    assert f"Next: polyhead check '{tmp_path / 'my site'}'" in text


READERS = {
    "chexpert": ("uncertain", "not_mentioned", "views", "seed", "validation", "allow_missing"),
    "mimic-cxr": ("uncertain", "not_mentioned", "views", "allow_missing"),
    "chestxray14": ("views", "seed", "validation", "allow_missing"),
    "vindr-cxr": ("uncertain", "seed", "validation", "allow_missing"),
    "padchest": ("views", "seed", "min_positives", "labels", "allow_missing"),
}
OTHERS = {
    "uncertain": "positive",
    "not_mentioned": "negative",
    "views": "all",
    "seed": 3,
    "validation": 0.4,
    "min_positives": 7,
    "labels": "physician",
    "allow_missing": True,
}


def test_every_option_is_judged() -> None:
    assert {field.name for field in fields(Options)} == set(OTHERS)
    assert set(READERS) == set(PUBLIC)


@pytest.mark.parametrize("option", sorted(OTHERS))
@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_an_option_is_refused_where_and_only_where_it_changes_nothing(name: str, option: str, tmp_path: Path) -> None:
    root, usual = MINIATURES[name](tmp_path / "root"), MINIATURE_OPTIONS.get(name, Options())
    options = replace(usual, **{option: OTHERS[option]})  # type: ignore[arg-type]
    before, after = (PUBLIC[name](root, one) for one in (usual, options))
    changed = not after.frame.equals(before.frame) or after.choices != before.choices
    assert changed == (option in READERS[name])
    if changed:
        import_site(name, root, tmp_path / "site", options)
    else:
        with pytest.raises(
            UsageError, match=f"--{option.replace('_', '-')} changes nothing for '{name}'; it goes with"
        ):
            import_site(name, root, tmp_path / "site", options)
        assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("option", ["min_positives", "labels"])
def test_a_table_refuses_padchests_options(option: str, tmp_path: Path) -> None:
    options = replace(Options(), **{option: OTHERS[option]})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="changes nothing for 'table'; it goes with padchest"):
        import_site("table", source(tmp_path / "root"), tmp_path / "site", options)


def map_for_chexpert(root: Path, site: Path) -> None:
    import_site("chexpert", root, site, Options(), root / "columns.toml")


def nearly_chexpert(root: Path, site: Path) -> None:
    import_site("Chexprt", root, site, Options())


def file_as_site(root: Path, site: Path) -> None:
    site.write_text("")
    import_site("table", root, site, Options())


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (map_for_chexpert, "--map goes with the adapter 'table'; 'chexpert' knows its own columns"),
        (nearly_chexpert, "no adapter 'Chexprt'; closest: chexpert"),
        (file_as_site, "site: is not a folder"),
    ],
)
def test_wrong_use_is_explained(mistake: Callable[[Path, Path], None], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as problem:
        mistake(source(tmp_path / "root"), tmp_path / "site")
    assert isinstance(problem.value, PolyheadError)
    assert problem.value.exit_code == 2


def test_the_command_imports_with_a_map_and_says_what_is_next(tmp_path: Path) -> None:
    root, site = source(tmp_path / "root"), tmp_path / "site"
    (tmp_path / "columns.toml").write_text('[findings]\nOedema = "Edema"\n')
    arguments = ("import", "table", root, "--map", tmp_path / "columns.toml", "--out", site)
    done = polyhead(*arguments, "--uncertain", "positive", "--not-mentioned", "negative")
    assert done.returncode == 0, done.stderr
    assert f"Next: polyhead check {site}" in said(done)
    assert "uncertain: positive" in said(done)
    assert read_manifest(site / "manifest.csv").frame["Oedema"].to_list() == [1, 0, 1]
    assert read_site_file(site).source["not_mentioned"] == "negative"
    again = polyhead(*arguments)
    assert again.returncode == 2
    assert "is there already" in said(again)
    assert polyhead(*arguments, "--force").returncode == 0
    assert read_manifest(site / "manifest.csv").frame["Oedema"].to_list() == [1, 0, None]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("import", "--help"), 0, "Example: polyhead import table"),
        (("import", "tabel", "x", "--out", "y"), 2, "error: no adapter 'tabel'; closest: table"),
        (("import", "table", "absent", "--out", "y"), 1, "error: absent: is not a folder"),
        (("import", "table", ".", "--out", "y", "--uncertain", "maybe"), 2, "Invalid value for '--uncertain'"),
        (("import", "table", "."), 2, "Missing option '--out'"),
    ],
)
def test_a_mistake_is_one_message_and_an_exit_code(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = polyhead(*arguments)
    assert done.returncode == code
    assert message in said(done)
    assert "Traceback" not in said(done)
