"""Why a path cannot be an image file, before it is opened."""

from pathlib import Path

__all__ = ["file_fault"]


def file_fault(path: Path) -> str | None:
    """Return what is wrong, as a sentence for after the path; None if there is a file that holds something."""
    # Opening a pipe or a device could wait for ever.
    if not path.is_file():
        return "is not a file." if path.exists() else "is missing."
    if path.stat().st_size == 0:
        return "is empty (0 bytes). Export or copy the image again."
    return None
