"""What to say about a site that failed: its cause and what to do, in words that may leave the house.

Only kinds of errors are named. The text of an error may hold a path, a patient or an image; it stays in the site's log.
"""

import errno

import torch

from polyhead.errors import CacheError, DiskError, ImageError, PolyheadError, RunError, UpdateError

__all__ = ["describe_failure"]

# A site that is simulated logs where the whole run does; one in a house of its own, where the engine does.
_LOG = "The site's log, run.log or its kit's log.txt,"


def describe_failure(problem: Exception) -> str:
    """Return the cause and the remedy of a failure, without a value from the site's data or disk."""
    if isinstance(problem, UpdateError):
        # Names of tensors and numbers, which the server knows.
        return str(problem)
    if isinstance(problem, ImageError | CacheError):
        return "an image or the pixel cache cannot be read. Run `polyhead check` at the site."
    if isinstance(problem, DiskError):
        return f"the disk at the site is full, or cannot be written. {_LOG} says what it needs."
    if isinstance(problem, RunError):
        return f"a file that the site keeps between rounds is missing or damaged. {_LOG} names it."
    if _is_out_of_memory(problem):
        return "not enough memory. Lower training.batch_size or model.image_size, or end what else runs there."
    if isinstance(problem, OSError):
        code = errno.errorcode.get(problem.errno or 0, "unknown")
        return f"a file or device failed ({code}). {_LOG} names it."
    kind = type(problem).__name__
    what = "" if isinstance(problem, PolyheadError) else " If it is not explained by that, please report it."
    return f"{kind}. {_LOG} tells more.{what}"


def _is_out_of_memory(problem: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(problem, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(problem)
