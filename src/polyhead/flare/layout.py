"""Where things lie in a kit: the folder that one party of a federation holds."""

from pathlib import Path

__all__ = ["AGREEMENT", "AUDIT", "RUN", "SITE_FILE", "STATES", "local_folder"]

AGREEMENT = "agreement.json"
"""What all hospitals agreed on, in ``local``."""

AUDIT = "audit.jsonl"
"""A site's record of its messages, in its kit; the engine has an ``audit.log`` of its own."""

RUN = "run"
"""A site's own run directory, in its kit: models, predictions and metrics, which stay."""

SITE_FILE = "site.toml"
"""A site's own settings, in ``local``; it never leaves."""

STATES = "states"
"""The folder of what server or site keep between rounds."""


def local_folder(kit: Path) -> Path:
    """Return the folder of a kit that its holder may change."""
    return kit / "local"
