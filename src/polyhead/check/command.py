"""What `polyhead check` is given: sites, or one study, and options that fit them."""

from collections.abc import Sequence
from pathlib import Path

from polyhead.check.images import Reading
from polyhead.check.result import CheckResult
from polyhead.check.site import check_sites
from polyhead.errors import UsageError

__all__ = ["check_source"]

_STUDY_KEYS = {"size": "model.image_size", "skip": "bad_images", "cache": "cache"}


def check_source(source: Sequence[Path], reading: Reading, given: Sequence[str]) -> CheckResult:
    """Check sites' folders, or one study file.

    Parameters
    ----------
    given
        Names of the options that were given of those that are for sites, such as ``size``: a study has keys for them.

    Raises
    ------
    UsageError
        If a study is given with sites, or with such options.
    StudyError
        If the file cannot be read as a study.
    """
    studies = [path for path in source if path.suffix == ".toml"]
    if studies and len(source) > 1:
        raise UsageError("give one study file, or folders of sites, not both.")
    if not studies:
        return check_sites(source, reading)
    if "share" in given:
        raise UsageError(
            "--share is for sites' folders: a study picks parts of a site, and sums of parts tell single patients."
        )
    if given:
        options = ", ".join(f"--{name}" for name in given)
        keys = ", ".join(repr(_STUDY_KEYS.get(name, f"pixels.{name}")) for name in given)
        many = len(given) > 1
        raise UsageError(
            f"{options} {'are' if many else 'is'} for sites; set the study's key{'s' if many else ''} {keys}."
        )
    # A study needs PyTorch, and tables alone do not.
    from polyhead.check.study import check_study

    return check_study(studies[0], reading)
