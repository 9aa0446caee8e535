"""Everything that Polyhead refuses, as one family.

* PolyheadError             anything below; the command line prints it as one line
    * UsageError            a command was called wrongly (exit code 2)
    * StudyError            the study file asks for something impossible (exit code 2)
    * SourceError           a data set's own files cannot be imported
    * ManifestError         a site's table cannot be trusted
    * ImageError            an image cannot be read
    * CacheError            a pixel cache cannot be built or does not fit
    * WeightsError          weights on disk do not fit the model
    * UpdateError           a site's update may not be sent or averaged
    * RunError              a run directory is in use, foreign or incomplete
        * QuorumError       too few sites could be counted in a round
    * PredictionsError      a table of predictions cannot be trusted
    * DiskError             a disk is full

A message says where (file, row, column, site), what was found, what is allowed and what to do.
"""

__all__ = [
    "CacheError",
    "DiskError",
    "ImageError",
    "ManifestError",
    "PolyheadError",
    "PredictionsError",
    "QuorumError",
    "RunError",
    "SourceError",
    "StudyError",
    "UpdateError",
    "UsageError",
    "WeightsError",
]


class PolyheadError(Exception):
    """A condition that a person can mend; its text is written for that person."""

    exit_code = 1


class UsageError(PolyheadError):
    """A command was called wrongly."""

    exit_code = 2


class StudyError(PolyheadError):
    """The study file asks for something impossible."""

    exit_code = 2


class ManifestError(PolyheadError):
    """A site's table cannot be trusted."""


class ImageError(PolyheadError):
    """An image cannot be read."""


class CacheError(PolyheadError):
    """A pixel cache cannot be built, or does not belong to the manifest."""


class WeightsError(PolyheadError):
    """Weights on disk do not fit the model they are meant for."""


class UpdateError(PolyheadError):
    """A site's update may not be sent, or may not be averaged."""


class RunError(PolyheadError):
    """A run directory is in use, belongs to another study, or is incomplete."""


class QuorumError(RunError):
    """Too few sites could be counted in every attempt at a round."""


class PredictionsError(PolyheadError):
    """A table of predictions cannot be trusted."""


class DiskError(PolyheadError):
    """A file cannot be written because the disk is full, or a quota used up."""


class SourceError(PolyheadError):
    """A data set's own files are not what its adapter, or the map of its columns, expects."""
