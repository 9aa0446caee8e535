"""Seeds derived from what they are for, so that no order of work and no global state changes a run."""

import hashlib

__all__ = ["derive_seed"]


def derive_seed(*parts: str | int) -> int:
    """Return a seed in ``[0, 2**63)`` for a purpose, such as ``derive_seed("augment", study_seed, site, round)``.

    The parts are hashed with their types and lengths kept apart: ``(1, 23)`` and ``(12, 3)`` differ.
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1
