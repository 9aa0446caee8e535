"""``site.toml``: what is written is read back, and what is faulty is refused with its place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import ManifestError
from polyhead.site_file import SiteFile, read_site_file, write_site_file

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def read(folder: Path, text: str | bytes) -> SiteFile:
    (folder / "site.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_site_file(folder)


def test_an_absent_file_is_an_empty_one(tmp_path: Path) -> None:
    assert read_site_file(tmp_path) == SiteFile()
    assert read(tmp_path, "") == SiteFile()


def test_the_folder_of_the_images_is_relative_to_the_site(tmp_path: Path) -> None:
    assert read(tmp_path, 'images = "pictures"').images == tmp_path / "pictures"
    assert read(tmp_path, 'images = "/data/x"').images == Path("/data/x")


def test_choices_become_text(tmp_path: Path) -> None:
    assert read(tmp_path, '[source]\nadapter = "table"\nseed = 3\n').source == {"adapter": "table", "seed": "3"}


@given(choices=st.dictionaries(TEXT, TEXT, max_size=4))
def test_any_text_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, choices: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("site")
    written = SiteFile(folder / "bild\x7fer 🩻", choices)
    write_site_file(folder, written)
    assert read_site_file(folder) == written


def test_a_name_that_is_no_text_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not UTF-8"):
        write_site_file(tmp_path, SiteFile(Path("/data/\udcff")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image = "x"', "unknown key 'image'; closest: images"),
        ("images = 3", "key 'images': found 3; allowed is text"),
        ('source = "x"', "key 'source': found 'x'; allowed is a table"),
        ("[source]\na = [1]", "key 'source.a': found [1]; allowed is text or a number"),
        ("[source]\na.b = 1", "key 'source.a': found {'b': 1}; allowed is text or a number"),
        ("images = ", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        ("x=" + "[" * 10_000, "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as problem:
        read(tmp_path, text)
    assert f"{tmp_path / 'site.toml'}: " in str(problem.value)
    assert message in str(problem.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "site.toml").mkdir()
    with pytest.raises(ManifestError, match=r"site\.toml: is not a file"):
        read_site_file(tmp_path)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert read(tmp_path, '\ufeffimages = "pixels"').images == tmp_path / "pixels"
