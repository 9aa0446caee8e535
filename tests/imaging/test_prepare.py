"""Laws of the pixel cache: equal to the pixel path, reused only while it fits, never half built."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from polyhead.errors import CacheError
from polyhead.imaging import cache_build
from polyhead.imaging.pixels import PATH_VERSION, Square, load_square
from polyhead.imaging.prepare import PixelCache, open_cache, prepare
from polyhead.imaging.recipe import RECIPES, Recipe
from polyhead.manifest import Manifest, check_manifest, read_manifest, take_shard, write_manifest
from tests.imaging.files import encoded, load_pixels

SIZE = 8
CHUNK = 4

# Kills itself, without any chance to tidy up, when the given number of images are in the journal.
KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
from polyhead.imaging import cache_build
from polyhead.imaging.prepare import prepare
from polyhead.manifest import read_manifest
cache_build.CHUNK_ROWS = {chunk}
def kill(done, total):
    if done >= {after}:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(read_manifest(Path(sys.argv[1])), Path(sys.argv[2]), {size}, progress=kill)
"""


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_build, "CHUNK_ROWS", CHUNK)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each image is decoded."""
    counts: Counter[str] = Counter()

    def counting(path: Path, size: int, recipe: Recipe) -> Square:
        counts[path.name] += 1
        return load_square(path, size, recipe)

    monkeypatch.setattr(cache_build, "load_square", counting)
    return counts


def make_site(folder: Path, count: int = 22, seed: int = 0) -> Manifest:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    names = [f"{index}.png" for index in range(count)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (12, 10), dtype=np.uint8)).save(folder / name)
    return rewrite(folder, names)


def rewrite(folder: Path, names: list[str]) -> Manifest:
    splits = ["train", "val", "test"]
    frame = pl.DataFrame(
        {
            "image": names,
            "patient_id": [f"p{index}" for index in range(len(names))],
            "split": [splits[index % 3] for index in range(len(names))],
            "Effusion": [index % 2 for index in range(len(names))],
        }
    )
    return write_manifest(frame, folder / "manifest.csv")


def replace_image(path: Path, seed: int = 99) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)).save(path)
    os.utime(path, ns=(0, seed))


def arrays(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def assert_equals_pixel_path(cache: PixelCache, manifest: Manifest, size: int = SIZE) -> None:
    for name in manifest.frame["image"]:
        if name not in cache.bad:
            expected = load_pixels(manifest.path.parent / name, size)
            np.testing.assert_array_equal(cache.images[cache.rows([name])[0]], expected)


# Building


@pytest.mark.parametrize("workers", [1, 2, 7, None])
def test_cache_equals_the_pixel_path_whatever_the_workers(tmp_path: Path, workers: int | None) -> None:
    manifest = make_site(tmp_path / "site")
    cache = prepare(manifest, tmp_path / "cache", SIZE, workers=workers)
    assert cache.images.shape == (22, SIZE, SIZE)
    assert cache.images.dtype == np.uint8
    assert not cache.images.flags.writeable
    assert isinstance(cache.images, np.memmap)
    assert not cache.bad
    assert_equals_pixel_path(cache, manifest)


def test_rows_follow_the_names_asked_for(tmp_path: Path) -> None:
    cache = prepare(make_site(tmp_path / "site"), tmp_path, SIZE)
    rows = cache.rows(["3.png", "0.png", "3.png"])
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, [3, 0, 3])
    assert cache.rows([]).shape == (0,)
    with pytest.raises(CacheError, match=r"'none\.png': not in the pixel cache"):
        cache.rows(["0.png", "none.png"])


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    prepare(make_site(tmp_path / "site"), tmp_path, SIZE, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) == 6
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (22, 22)


def test_only_header_array_and_lock_remain(tmp_path: Path) -> None:
    prepare(make_site(tmp_path / "site"), tmp_path / "cache", SIZE)
    assert sorted(file.suffix for file in (tmp_path / "cache").iterdir()) == [".json", ".lock", ".npy"]


# Reusing and rebuilding


def test_fitting_cache_is_reused_without_decoding(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    first = prepare(manifest, tmp_path, SIZE)
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.glob("pixels-*")}
    decoded.clear()
    second = prepare(read_manifest(manifest.path), tmp_path, SIZE)
    assert not decoded
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("pixels-*")} == stamps
    np.testing.assert_array_equal(first.images, second.images)


def test_changed_image_is_decoded_anew_and_the_others_copied(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    before = prepare(manifest, tmp_path, SIZE)
    old = before.images.copy()
    replace_image(tmp_path / "site" / "5.png")
    assert open_cache(manifest, tmp_path, SIZE) is None
    decoded.clear()
    after = prepare(manifest, tmp_path, SIZE)
    assert decoded == {"5.png": 1}
    assert_equals_pixel_path(after, manifest)
    np.testing.assert_array_equal(before.images, old)  # Who has the old one open keeps it.
    assert len(arrays(tmp_path)) == 1


def test_changed_manifest_is_prepared_anew(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path, SIZE)
    replace_image(tmp_path / "site" / "new.png")
    changed = rewrite(tmp_path / "site", ["new.png", *reversed(manifest.frame["image"].to_list())])
    decoded.clear()
    cache = prepare(changed, tmp_path, SIZE)
    assert decoded == {"new.png": 1}
    assert cache.images.shape[0] == 23
    assert_equals_pixel_path(cache, changed)


def test_recipes_share_a_folder_and_leave_each_other_alone(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    recipes = [Recipe(), RECIPES["paper"], Recipe(frames="first")]
    for recipe in recipes:
        assert open_cache(manifest, tmp_path / "cache", SIZE, recipe) is None
        prepare(manifest, tmp_path / "cache", SIZE, recipe)
    decoded.clear()
    for recipe in recipes:
        cache = prepare(manifest, tmp_path / "cache", SIZE, recipe)
        for row, name in enumerate(manifest.frame["image"]):
            np.testing.assert_array_equal(cache.images[row], load_pixels(manifest.root / name, SIZE, recipe))
    assert not decoded
    assert len(arrays(tmp_path / "cache")) == 3


def test_cache_of_another_recipe_is_not_taken_by_its_name(tmp_path: Path) -> None:
    """Should two recipes ever meet in one name, what the header says decides."""
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path / "cache", SIZE)
    ours = next((tmp_path / "cache").glob("*.json")).stem
    prepare(manifest, tmp_path / "cache", SIZE, RECIPES["paper"])
    theirs = next(file.stem for file in (tmp_path / "cache").glob("*.json") if file.stem != ours)
    for file in (tmp_path / "cache").glob(f"{theirs}*"):
        file.rename(tmp_path / "cache" / file.name.replace(theirs, ours))
    assert open_cache(manifest, tmp_path / "cache", SIZE) is None
    assert_equals_pixel_path(prepare(manifest, tmp_path / "cache", SIZE), manifest)


def test_header_says_by_what_the_pixels_were_made(tmp_path: Path) -> None:
    prepare(make_site(tmp_path / "site"), tmp_path, SIZE, RECIPES["paper"])
    header = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert (header["size"], header["path"], header["recipe"]) == (SIZE, PATH_VERSION, asdict(RECIPES["paper"]))


def test_another_pixel_path_is_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Counter[str]
) -> None:
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path, SIZE)
    monkeypatch.setattr("polyhead.imaging.cache_files.PATH_VERSION", 99)
    decoded.clear()
    assert open_cache(manifest, tmp_path, SIZE) is None
    prepare(manifest, tmp_path, SIZE)
    assert len(decoded) == 22


@pytest.mark.parametrize("damage", ["cut array", "no array", "cut header", "header of other types"])
def test_damaged_cache_is_built_anew(tmp_path: Path, damage: str) -> None:
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path, SIZE)
    array, header = arrays(tmp_path)[0], next(tmp_path.glob("*.json"))
    if damage == "cut array":
        array.write_bytes(array.read_bytes()[:-1])
    elif damage == "no array":
        array.unlink()
    elif damage == "cut header":
        header.write_bytes(header.read_bytes()[:-10])
    else:
        header.write_text("[1, 2]")
    assert open_cache(manifest, tmp_path, SIZE) is None
    assert_equals_pixel_path(prepare(manifest, tmp_path, SIZE), manifest)


def test_sizes_and_sites_share_a_folder(tmp_path: Path, decoded: Counter[str]) -> None:
    sites = [make_site(tmp_path / name, seed=seed) for seed, name in enumerate(("a", "b"))]
    for size in (SIZE, 11):
        for site in sites:
            prepare(site, tmp_path / "cache", size)
    decoded.clear()
    for size in (SIZE, 11):
        for site in sites:
            assert_equals_pixel_path(prepare(site, tmp_path / "cache", size), site, size)
    assert not decoded
    assert len(arrays(tmp_path / "cache")) == 4


def test_sites_that_use_parts_of_a_manifest_share_its_cache(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    shards = [take_shard(manifest, index, 2) for index in (1, 2)]
    for shard in shards:
        cache = prepare(shard, tmp_path, SIZE)
        assert cache.images.shape[0] == 22
        assert_equals_pixel_path(cache, shard)
    assert set(decoded.values()) == {1}


def test_cache_survives_moving_the_site(tmp_path: Path, decoded: Counter[str]) -> None:
    prepare(make_site(tmp_path / "site"), tmp_path / "site", SIZE)
    shutil.move(tmp_path / "site", tmp_path / "moved")
    decoded.clear()
    prepare(read_manifest(tmp_path / "moved" / "manifest.csv"), tmp_path / "moved", SIZE)
    assert not decoded


# Labels that are not the pixels' affair


def test_manifest_with_faulty_labels_is_prepared(tmp_path: Path) -> None:
    """Only the columns of images, patients and splits say which rows are images."""
    sound = make_site(tmp_path / "site")
    lines = sound.path.read_text().splitlines()
    lines[3] = lines[3][:-1] + "yes"
    lines[5] = lines[5].replace("train", "elsewhere").replace("val", "elsewhere").replace("test", "elsewhere")
    sound.path.write_text("\n".join(lines))
    problems, manifest = check_manifest(sound.path)
    assert len(problems) == 2
    assert manifest
    cache = prepare(manifest, tmp_path, SIZE, bad_budget=1.0)
    assert set(cache.row_of) == {f"{index}.png" for index in range(22)} - {"4.png"}
    assert_equals_pixel_path(cache, manifest)
    (tmp_path / "site" / "8.png").unlink()
    with pytest.raises(CacheError, match=r"line 10, 8\.png: is missing"):
        prepare(manifest, tmp_path, SIZE, bad_budget=0)


def test_images_lie_where_the_site_file_says(tmp_path: Path) -> None:
    make_site(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "site" / "manifest.csv", tmp_path / "elsewhere" / "manifest.csv")
    (tmp_path / "elsewhere" / "site.toml").write_text('images = "../site"')
    manifest = read_manifest(tmp_path / "elsewhere" / "manifest.csv")
    cache = prepare(manifest, tmp_path / "cache", SIZE)
    np.testing.assert_array_equal(cache.images[3], load_pixels(tmp_path / "site" / "3.png", SIZE))


# Notes


@pytest.fixture
def noted(tmp_path: Path) -> Manifest:
    manifest = make_site(tmp_path / "site")
    for index in (2, 5, 9):
        Image.open(tmp_path / "site" / f"{index}.png").convert("RGB").save(tmp_path / "site" / f"{index}.png")
    Image.open(tmp_path / "site" / "9.png").save(tmp_path / "site" / "9.png", "JPEG")
    return manifest


NOTES = {"2.png": ("colour",), "5.png": ("colour",), "9.png": ("colour", "extension says otherwise")}


def test_notes_are_kept_with_the_pixels(noted: Manifest, tmp_path: Path, decoded: Counter[str]) -> None:
    for _ in ("built", "reused"):
        assert prepare(noted, tmp_path, SIZE).notes == NOTES
    replace_image(tmp_path / "site" / "2.png")
    decoded.clear()
    assert prepare(noted, tmp_path, SIZE).notes == {name: NOTES[name] for name in ("5.png", "9.png")}
    assert set(decoded) == {"2.png"}


def test_notes_are_of_the_images_asked_for(noted: Manifest, tmp_path: Path) -> None:
    for index in (1, 2):
        shard = take_shard(noted, index, 2)
        names = set(shard.frame["image"])
        assert prepare(shard, tmp_path, SIZE).notes == {name: NOTES[name] for name in NOTES if name in names}


def test_notes_survive_a_kill(noted: Manifest, tmp_path: Path, decoded: Counter[str]) -> None:
    killed_build(noted, tmp_path / "cache", after=16)
    cache = prepare(noted, tmp_path / "cache", SIZE)
    assert len(decoded) <= 6
    assert cache.notes == NOTES


# Being killed


def killed_build(manifest: Manifest, folder: Path, after: int) -> None:
    code = KILLED_BUILD.format(chunk=CHUNK, after=after, size=SIZE)
    ended = subprocess.run([sys.executable, "-c", code, manifest.path, folder], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def test_killed_build_goes_on_and_ends_the_same(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site", count=42)
    replace_bad = tmp_path / "site" / "1.png"
    replace_bad.write_bytes(b"")
    undisturbed = prepare(manifest, tmp_path / "undisturbed", SIZE, bad_budget=0.1)
    killed_build(manifest, tmp_path / "killed", after=12)
    assert open_cache(manifest, tmp_path / "killed", SIZE) is None
    done = spoil_what_is_not_in_the_journal(tmp_path / "killed")
    assert len(done) >= 12
    decoded.clear()
    resumed = prepare(manifest, tmp_path / "killed", SIZE, bad_budget=0.1)
    assert set(decoded) == {f"{row}.png" for row in set(range(42)) - done}
    np.testing.assert_array_equal(resumed.images, undisturbed.images)
    assert resumed.bad == undisturbed.bad == {"1.png": "is empty (0 bytes). Export or copy the image again."}


def spoil_what_is_not_in_the_journal(folder: Path) -> set[int]:
    """Play the half-written images of a power cut, and a journal cut in its last line; return the rows done."""
    journal = next(folder.glob("*.journal"))
    chunks = cache_build.read_journal(journal)
    done = {row for start, stop in chunks for row in range(start, stop)}
    array = np.lib.format.open_memmap(arrays(folder)[0], "r+")
    array[sorted(set(range(len(array))) - done)] = 0xAB
    array.flush()
    with journal.open("a") as file:
        file.write('{"rows": [40, 4')
    return done


def test_killed_build_is_dropped_if_an_image_changed_since(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    killed_build(manifest, tmp_path / "cache", after=8)
    replace_image(tmp_path / "site" / "0.png")
    cache = prepare(manifest, tmp_path / "cache", SIZE)
    assert len(decoded) == 22
    assert_equals_pixel_path(cache, manifest)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_kill_while_rebuilding_leaves_no_header_beside_a_new_array(tmp_path: Path) -> None:
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path / "cache", SIZE)
    arrays(tmp_path / "cache")[0].unlink()
    killed_build(manifest, tmp_path / "cache", after=8)
    assert open_cache(manifest, tmp_path / "cache", SIZE) is None
    assert_equals_pixel_path(prepare(manifest, tmp_path / "cache", SIZE), manifest)


def test_journal_does_not_outlive_its_array(tmp_path: Path) -> None:
    """Rows that the first journal called done are zeros in the second array."""
    manifest = make_site(tmp_path / "site", count=42)
    killed_build(manifest, tmp_path / "cache", after=32)
    arrays(tmp_path / "cache")[0].unlink()
    killed_build(manifest, tmp_path / "cache", after=4)
    assert_equals_pixel_path(prepare(manifest, tmp_path / "cache", SIZE), manifest)


def test_failing_callback_stops_the_build_and_keeps_what_is_done(tmp_path: Path, decoded: Counter[str]) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    manifest = make_site(tmp_path / "site", count=200)
    with pytest.raises(KeyboardInterrupt):
        prepare(manifest, tmp_path, SIZE, progress=interrupt, workers=1)
    assert CHUNK <= len(decoded) < 200
    decoded.clear()
    prepare(manifest, tmp_path, SIZE)
    assert len(decoded) == 200 - CHUNK


# Bad images


@pytest.fixture
def flawed(tmp_path: Path) -> Manifest:
    manifest = make_site(tmp_path / "site")
    folder = tmp_path / "site"
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:80])
    Image.new("L", (5, 5), 9).save(folder / "7.png")
    (folder / "9.png").unlink()
    return manifest


def test_bad_images_within_the_budget_are_left_out_and_named(flawed: Manifest, tmp_path: Path) -> None:
    for _ in ("built", "reused"):
        cache = prepare(flawed, tmp_path, SIZE, bad_budget=3 / 22)
        assert list(cache.bad) == ["3.png", "7.png", "9.png"]
        assert cache.bad["3.png"].startswith("cannot be read")
        assert cache.bad["7.png"].startswith("constant image: every pixel is 9")
        assert cache.bad["9.png"] == "is missing."
        assert_equals_pixel_path(cache, flawed)
        with pytest.raises(CacheError, match=r"'7\.png': constant image"):
            cache.rows(["7.png"])


def test_bad_images_stay_bad_when_another_image_changes(flawed: Manifest, tmp_path: Path) -> None:
    prepare(flawed, tmp_path, SIZE, bad_budget=0.2)
    replace_image(tmp_path / "site" / "5.png")
    assert list(prepare(flawed, tmp_path, SIZE, bad_budget=0.2).bad) == ["3.png", "7.png", "9.png"]


def test_too_many_bad_images_are_listed_by_line(flawed: Manifest, tmp_path: Path) -> None:
    for _ in ("built", "reused"):
        with pytest.raises(CacheError) as caught:
            prepare(flawed, tmp_path, SIZE, bad_budget=0.1)
        lines = str(caught.value).splitlines()
        assert lines[0].startswith(f"{flawed.path}: 3 of 22 images cannot be used; allowed are 10.0%.")
        assert [line.split(":")[0] for line in lines[1:]] == [
            f"{flawed.path}, line {row + 2}, {row}.png" for row in (3, 7, 9)
        ]


def test_mended_images_are_all_that_is_decoded_next_time(
    flawed: Manifest, tmp_path: Path, decoded: Counter[str]
) -> None:
    with pytest.raises(CacheError):
        prepare(flawed, tmp_path, SIZE, bad_budget=0.1)
    for index in (3, 7, 9):
        replace_image(tmp_path / "site" / f"{index}.png", seed=index)
    decoded.clear()
    cache = prepare(flawed, tmp_path, SIZE)
    assert set(decoded) == {"3.png", "7.png", "9.png"}
    assert_equals_pixel_path(cache, flawed)


def test_missing_images_are_reported_before_anything_is_decoded(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    for index in range(10):
        (tmp_path / "site" / f"{index}.png").unlink()
    with pytest.raises(CacheError, match=r"10 of 22 images cannot be used(.|\n)*and 2 more images\."):
        prepare(manifest, tmp_path, SIZE)
    assert not decoded


def test_wrong_extension_is_read_by_content(tmp_path: Path) -> None:
    manifest = make_site(tmp_path / "site")
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(tmp_path / "site" / "2.png", "JPEG")
    cache = prepare(manifest, tmp_path, SIZE)
    assert not cache.bad
    assert_equals_pixel_path(cache, manifest)


# Refusing


def test_link_out_of_the_site_is_refused_with_its_line(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    (tmp_path / "site" / "4.png").rename(tmp_path / "4.png")
    (tmp_path / "site" / "4.png").symlink_to(tmp_path / "4.png")
    with pytest.raises(CacheError, match=r"line 6, column 'image': '4\.png' leads out of"):
        prepare(manifest, tmp_path, SIZE)
    assert not decoded


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    yield folder
    folder.chmod(0o700)


def test_folder_that_cannot_be_written_is_refused_at_the_start(
    tmp_path: Path, read_only: Path, decoded: Counter[str]
) -> None:
    manifest = make_site(tmp_path / "site")
    blocked = tmp_path / "file"
    blocked.write_text("")
    folders = [blocked, blocked / "below"] + ([read_only] if os.geteuid() else [])  # Root may write anywhere.
    for folder in folders:
        with pytest.raises(CacheError, match=r"no pixel cache can be written here \(.+\)\. Name a folder that can"):
            prepare(manifest, folder, SIZE)
    assert not decoded


def test_finished_cache_needs_no_lock(tmp_path: Path) -> None:
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path, SIZE)
    next(tmp_path.glob("*.lock")).unlink()
    prepare(manifest, tmp_path, SIZE)
    assert not list(tmp_path.glob("*.lock"))


def test_second_builder_is_refused(tmp_path: Path, decoded: Counter[str]) -> None:
    manifest = make_site(tmp_path / "site")
    prepare(manifest, tmp_path, SIZE)
    next(tmp_path.glob("*.json")).unlink()
    decoded.clear()
    with next(tmp_path.glob("*.lock")).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CacheError, match="another process is preparing"):
            prepare(manifest, tmp_path, SIZE)
    assert not decoded
    prepare(manifest, tmp_path, SIZE)


def test_too_little_space_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Counter[str]
) -> None:
    manifest = make_site(tmp_path / "site")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(CacheError, match=r"needs 7,040 bytes, but 1,000 are free"):
        prepare(manifest, tmp_path, SIZE)
    assert not decoded
    assert not arrays(tmp_path)


def test_disk_that_fills_up_is_an_error_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Counter[str]
) -> None:
    append = cache_build.append_journal
    written = []

    def full_after_two(*arguments: object) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(append(*arguments))

    manifest = make_site(tmp_path / "site")
    monkeypatch.setattr(cache_build, "append_journal", full_after_two)
    with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\)"):
        prepare(manifest, tmp_path, SIZE)
    monkeypatch.setattr(cache_build, "append_journal", append)
    decoded.clear()
    prepare(manifest, tmp_path, SIZE)
    assert 22 - 2 * CHUNK <= len(decoded) <= 22 - CHUNK - 2


def test_files_that_were_exchanged_are_read_again_although_size_and_time_are_equal(tmp_path: Path) -> None:
    manifest = make_site(tmp_path / "site")
    first, second = (manifest.root / name for name in manifest.frame["image"][:2])
    pixels = [np.random.default_rng(seed).integers(0, 256, (40, 40)).astype(np.uint8) for seed in (1, 2)]
    contents = [encoded(one, "PNG", compress_level=0) for one in pixels]
    for path, content in zip((first, second), contents, strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
    before = prepare(manifest, tmp_path, SIZE).images[:2].copy()
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    np.testing.assert_array_equal(prepare(manifest, tmp_path, SIZE).images[:2], before[::-1])


def test_a_link_that_takes_a_files_place_while_images_are_read_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_site(tmp_path / "site")
    secret = tmp_path / "secret.png"
    path = manifest.root / manifest.frame["image"][0]
    secret.write_bytes(path.read_bytes())
    check = cache_build._check_confined

    def check_then_plant(manifest: Manifest, lines: Mapping[str, int]) -> None:
        check(manifest, lines)
        path.unlink()
        path.symlink_to(secret)

    monkeypatch.setattr(cache_build, "_check_confined", check_then_plant)
    with pytest.raises(CacheError, match="leads out of"):
        prepare(manifest, tmp_path / "site", SIZE, bad_budget=0)
