"""Reading a file that may hold anything: whatever goes wrong becomes an ImageError of one line."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from polyhead.errors import ImageError
from polyhead.imaging.file_fault import file_fault

__all__ = ["reading"]


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file, and turn every exception into an ImageError that begins with its path.

    What pydicom and the decoders say of a broken file may repeat what it holds, a patient's name among it: only the
    kind of their exceptions is passed on, and their warnings are silenced. Python's filters of warnings belong to the
    whole process: who reads from several threads must hold ``warnings.catch_warnings()`` around all of them.
    """
    try:
        if fault := file_fault(path):
            raise ImageError(fault)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            yield file
    except ImageError as problem:
        raise ImageError(f"{path}: {problem}") from None
    except OSError as problem:
        raise ImageError(f"{path}: cannot be read ({problem.strerror or type(problem).__name__}).") from None
    except (EOFError, struct.error):
        raise ImageError(f"{path}: the DICOM file is cut short. Export or copy it again.") from None
    except Exception as problem:
        kind = type(problem).__name__
        raise ImageError(f"{path}: broken DICOM ({kind} while reading it). Export or copy it again.") from None
