"""Image files made by hand."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from polyhead.imaging.pixels import load_square
from polyhead.imaging.recipe import STANDARD, Recipe

NOISE = np.random.default_rng(0).integers(0, 256, (12, 9), dtype=np.uint8)
RAMP16 = np.linspace(1000, 60_000, 64 * 50).astype(np.uint16).reshape(64, 50)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def load_pixels(path: Path, size: int, recipe: Recipe = STANDARD) -> np.ndarray:
    return load_square(path, size, recipe).pixels


def saved(folder: Path, content: bytes, name: str = "image.png") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def animated(*frames: np.ndarray, **options: object) -> bytes:
    first, *others = map(Image.fromarray, frames)
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=True, append_images=others, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: bytes, data: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def scene(height: int, width: int) -> np.ndarray:
    """Smooth shapes with some edges, as a radiograph has."""
    y, x = np.indices((height, width)) / [[[height]], [[width]]]
    smooth = 120 + 60 * np.sin(5 * x + 1) * np.cos(4 * y) + 40 * (np.hypot(x - 0.3, y - 0.5) < 0.2)
    return np.clip(smooth + np.random.default_rng(1).normal(0, 6, (height, width)), 0, 255).astype(np.uint8)
