"""What it costs to bring full-size radiographs into a pixel cache, and to read them from it.

    python benchmarks/pixels.py [--images 12] [--repeats 7]

1. Building a cache, one thread, against the pipeline of the paper's authors, written from its description: grey,
   ``scipy.ndimage.zoom`` of order 2 to 512 x 512, minimum to maximum, inverted if MONOCHROME1, histogram equalised,
   saved as JPEG. The same images in turn: phantoms of 2544 x 3056 pixels with noise, as 8-bit JPEG and as uncompressed
   16-bit DICOM. And against decoding alone: every pixel by Pillow, ``pixel_array`` of pydicom.
2. Reading a batch of 32 from a cache, against decoding 32 PNGs of the same pixels.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from rich.console import Console
from rich.table import Table
from scipy.ndimage import zoom

from polyhead.imaging.prepare import prepare
from polyhead.imaging.recipe import RECIPES, STANDARD, Recipe
from polyhead.manifest import Manifest, write_manifest
from polyhead.phantom import Acquisition, draw_phantom

Decode = Callable[[Path], NDArray[np.uint8] | NDArray[np.uint16]]

HEIGHT, WIDTH = 3056, 2544
BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    table = Table("files", "ours", "peer", "peer / ours (least to most)", "ours, s an image", "peer, s an image")
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in (("JPEG", write_jpeg), ("DICOM", write_dicom)):
            site = make_site(Path(folder) / kind, options.images, write)
            decode: Decode = decode_raster if kind == "JPEG" else decode_dicom
            peers = {
                "the authors' pipeline": partial(authors_pipeline, site, decode),
                "decoding alone": partial(decode_all, site, decode),
            }
            for name, recipe, size in (("paper, 512", RECIPES["paper"], 512), ("standard, 224", STANDARD, 224)):
                for peer, work in peers.items():
                    ours = cache_builder(site, size, recipe)
                    table.add_row(kind, name, peer, *ratios(work, ours, options.repeats, options.images))
    Console(width=140).print(table)
    print(f"a batch of {BATCH} at 224 pixels, PNGs / cache: {batch_ratio(40)}")


def ratios(peer: Callable[[], object], ours: Callable[[], object], repeats: int, images: int) -> tuple[str, str, str]:
    """Time both in turn; the median ratio of the pairs is little moved by a busy machine."""
    pairs = [(timed(peer) / images, timed(ours) / images) for _ in range(repeats + 1)][1:]
    each = [a / b for a, b in pairs]
    theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})", f"{own:.3f}", f"{theirs:.3f}"


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# The images


def make_site(folder: Path, images: int, write: Callable[[NDArray[np.uint16], Path], None]) -> Manifest:
    folder.mkdir()
    names = [f"{number}.image" for number in range(images)]
    for number, name in enumerate(names):
        write(radiograph(number), folder / name)
    splits = [("train", "val", "test")[number % 3] for number in range(images)]
    return write_manifest(
        pl.DataFrame({"image": names, "patient_id": names, "split": splits, "Mass": [0] * images}),
        folder / "manifest.csv",
    )


def radiograph(number: int) -> NDArray[np.uint16]:
    """A phantom, enlarged, with a detector's noise; 12 bits in 16."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(draw_phantom(rng, {}, Acquisition(), 512)).convert("F")
    large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    noisy = 16 * large + rng.normal(0, 24, large.shape).astype(np.float32)
    clipped: NDArray[np.float32] = np.clip(noisy, 0, 4095)
    return clipped.astype(np.uint16)


def write_jpeg(pixels: NDArray[np.uint16], path: Path) -> None:
    Image.fromarray((pixels // 16).astype(np.uint8)).save(path, "JPEG", quality=92)


def write_dicom(pixels: NDArray[np.uint16], path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, file.ViewPosition, file.PhotometricInterpretation = "DX", "PA", "MONOCHROME2"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.WindowCenter, file.WindowWidth = 2048, 4096
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)


def files(site: Manifest) -> list[Path]:
    return [site.root / name for name in site.frame["image"]]


# The peers


def decode_raster(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def decode_dicom(path: Path) -> NDArray[np.uint16]:
    image = dcmread(path)
    pixels: NDArray[np.uint16] = image.pixel_array
    return pixels.max() - pixels if image.PhotometricInterpretation == "MONOCHROME1" else pixels


def decode_all(site: Manifest, decode: Decode) -> None:
    for path in files(site):
        decode(path)


def authors_pipeline(site: Manifest, decode: Decode) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in files(site):
            pixels = decode(path)
            small = zoom(pixels, (512 / pixels.shape[0], 512 / pixels.shape[1]), output=np.float32, order=2)
            spread = (255 * (small - small.min()) / np.ptp(small)).astype(np.uint8)
            shares = np.cumsum(np.bincount(spread.ravel(), minlength=256)) / spread.size
            Image.fromarray((255 * shares).astype(np.uint8)[spread]).save(Path(folder) / f"{path.stem}.jpg")


def cache_builder(site: Manifest, size: int, recipe: Recipe) -> Callable[[], None]:
    def build() -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare(site, Path(folder), size, recipe, workers=1)

    return build


# Reading


def decode_batch(paths: list[Path]) -> NDArray[np.uint8]:
    return np.stack([decode_raster(path) for path in paths])


def batch_ratio(repeats: int) -> str:
    """Read 32 of 512 images in random order from a cache, and the same from PNGs; both are in the system's memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = [f"{number}.png" for number in range(512)]
        for number, image in enumerate(names):
            Image.fromarray(draw_phantom(np.random.default_rng(number), {}, Acquisition(), 224)).save(folder / image)
        splits = [("train", "val", "test")[number % 3] for number in range(512)]
        columns = {"image": names, "patient_id": names, "split": splits, "Mass": [0] * 512}
        cache = prepare(write_manifest(pl.DataFrame(columns), folder / "manifest.csv"), folder, 224)
        rng = np.random.default_rng(0)
        each = []
        for _ in range(repeats):
            rows = rng.choice(512, BATCH, replace=False)
            paths = [folder / names[row] for row in rows]
            decoding = timed(partial(decode_batch, paths))
            reading = timed(partial(np.take, cache.images, rows, axis=0))
            each.append((decoding / reading, 1000 * decoding, 1000 * reading))
    ratio, decoding, reading = (statistics.median(column) for column in zip(*each, strict=True))
    least, most = min(each)[0], max(each)[0]
    return f"{ratio:.0f} ({least:.0f} to {most:.0f}; medians {decoding:.1f} ms, {reading:.2f} ms)"


if __name__ == "__main__":
    main()
