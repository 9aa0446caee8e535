"""A decoded image, before it becomes a square."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_PIXELS", "Grey", "Radiograph"]

# A whole-spine radiograph has 30 million pixels; decoding this many takes 200 MB in grey, some 1 GB in colour.
MAX_PIXELS = 50_000_000

Grey = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True)
class Radiograph:
    """An image as its file shows it: grey, upright, bright where the body is dense.

    Attributes
    ----------
    samples
        Shape ``(height, width)``, uint8 or uint16: the grey values, or what `table` turns into them.
    file_format
        By content, never by extension.
    notes
        What a policy did to it, in a few fixed words that hold nothing of the file: ``"colour"``, ``"first of several
        frames"``, ``"lateral view"``, ...
    table
        The grey value of every sample that there can be; None if the samples are grey values. Whoever looks up in a
        table of his own can join the two, and pass over the image once.
    """

    samples: Grey
    file_format: Literal["PNG", "JPEG", "DICOM"]
    notes: tuple[str, ...] = ()
    table: Grey | None = None

    @property
    def grey(self) -> Grey:
        """The grey values, shape ``(height, width)``; uint16 where the file holds more than 8 bits, else uint8."""
        if self.table is None:
            return self.samples
        grey: Grey = self.table[self.samples]
        return grey
