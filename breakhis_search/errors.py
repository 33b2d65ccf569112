"""Every error this package raises on purpose, as one tree.

::

    BreakhisSearchError            the root: one line on screen, exit code 1
    ├── ConfigError                a study file or a --set that cannot be used
    ├── DataError                  the images on disk cannot be used
    │   ├── DatasetNotFoundError   no BreaKHis at the place that was given
    │   ├── BadImagesError         files that are broken, misnamed or contradictory
    │   └── DownloadError          the archive could not be fetched or verified
    ├── SplitError                 no valid split exists (too few patients)
    │   └── SplitLeakageError      a patient would stand on both sides of a split
    ├── WeightsError               pretrained weights are missing or do not fit
    ├── DeviceError                the device that was asked for is not there
    ├── StudyError                 the study storage cannot be opened or is contradictory
    │   └── StorageLostError       a database server that answered before does not any more
    ├── EngineError                worker processes cannot be kept running
    ├── ComparisonError            predictions that cannot be held against each other
    ├── ReplayError                a run cannot be trained again from what MLflow holds
    ├── TrackingError              MLflow cannot be reached or refuses a record
    │   ├── ServerAwayError        its server does not answer
    │   ├── DiskError              the disk under it is full or read-only: waiting does not help
    │   ├── NotDeliveredError      it has refused for longer than a run waits at its end
    │   └── JournalError           one run's records cannot be delivered, whatever MLflow does
    ├── RegistryError              a model cannot be packaged, verified, registered or promoted
    └── TrialFailure               one trial failed; it is recorded and the study goes on
        └── OutOfMemoryFailure     for want of memory: it is tried again in smaller parts

A message has up to four parts: what is wrong, what was expected, what was received, what to do.
"""

from __future__ import annotations


class BreakhisSearchError(Exception):
    """An error whose message tells the user what to do.

    Args:
        what: What is wrong, as a clause without a full stop.
        expected: What would have been right.
        received: What was found instead.
        remedy: What to do about it, as an imperative.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        remedy: str | None = None,
    ) -> None:
        parts = [what]
        if expected:
            parts.append(f"expected {expected}")
        if received:
            parts.append(f"received {received}")
        if remedy:
            parts.append(f"to do: {remedy}")
        super().__init__("; ".join(parts))
        self.what = what
        self.expected = expected
        self.received = received
        self.remedy = remedy


class ConfigError(BreakhisSearchError):
    """A study file, profile or ``--set`` cannot be used."""


class DataError(BreakhisSearchError):
    """The images on disk cannot be used."""


class DatasetNotFoundError(DataError):
    """No BreaKHis tree is at the place that was given."""


class BadImagesError(DataError):
    """Files are broken, misnamed or contradictory."""


class DownloadError(DataError):
    """The archive could not be fetched or verified."""


class SplitError(BreakhisSearchError):
    """The patients do not allow the split that was asked for."""


class SplitLeakageError(SplitError):
    """A patient (or one of its images) would stand on both sides of a split."""


class WeightsError(BreakhisSearchError):
    """Pretrained weights are missing, unreachable or do not fit the architecture."""


class DeviceError(BreakhisSearchError):
    """The device that was asked for is not there."""


class StudyError(BreakhisSearchError):
    """The study storage cannot be opened, or contradicts the study file."""


class StorageLostError(StudyError):
    """A database server does not answer; it may do so again."""


class EngineError(BreakhisSearchError):
    """Worker processes cannot be kept running, or ran into a defect."""


class ComparisonError(BreakhisSearchError):
    """Predictions that cannot be held against each other, such as those of other images."""


class ReplayError(BreakhisSearchError):
    """A run cannot be trained again from what MLflow holds of it."""


class TrackingError(BreakhisSearchError):
    """MLflow cannot be reached or refuses a record."""


class ServerAwayError(TrackingError):
    """The MLflow server does not answer."""


class DiskError(TrackingError):
    """The disk that runs are kept on is full or read-only; it does not heal by waiting."""


class NotDeliveredError(TrackingError):
    """MLflow has refused for so long that who waits for all to be there waits no longer."""


class JournalError(TrackingError):
    """The records of one run cannot be brought to MLflow; those of others can."""


class RegistryError(BreakhisSearchError):
    """A model cannot be packaged, verified, registered or promoted."""


class TrialFailure(BreakhisSearchError):  # noqa: N818 - the design names it; a failure is data here
    """One trial failed for a reason of its own; it is recorded and the study goes on."""


class OutOfMemoryFailure(TrialFailure):
    """A step did not fit into the memory of the device."""
