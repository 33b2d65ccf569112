"""What a refusal of MLflow says: that a request is wrong, or that the store is away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from breakhis_search.errors import JournalError
from breakhis_search.settings import without_secrets
from breakhis_search.tracking.journal import Journal

_OF_ONE_RUN = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "RESOURCE_DOES_NOT_EXIST",
}
"""Codes of MLflow that say that this request is wrong, and not that the store is away."""
_HTTP_OF_ONE_RUN = {400, 409, 410, 411, 413, 414, 415, 422, 431}
"""HTTP: what was sent is wrong or too large. Other 4xx are of whoever asks (401, 403, 407), of the
moment (408, 429), or of a proxy whose server is away (404)."""


@contextmanager
def faults_of_a_run(journal: Journal) -> Iterator[None]:
    """Tell what is wrong with one run apart from a store that is away.

    Raises:
        JournalError: MLflow refuses what the block sends of the run, and would again.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import HTTPError

    try:
        yield
    except (MlflowException, HTTPError) as error:
        if not _is_of_one_run(error):
            raise
        raise JournalError(
            f"MLflow refuses them ({without_secrets(str(error)).splitlines()[0][:300]})",
            remedy=f"see the run of journal {journal.folder} in MLflow",
        ) from error


def _is_of_one_run(error: Exception) -> bool:
    """Tell whether a refusal says that this request is wrong, and not that the store is away.

    A server that is called by its address answers a client's fault with 4xx, such as a file that is
    larger than a proxy in front of it lets through (413). Some of those are of everybody.
    """
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or _status_in(str(error))
    if status:
        return status in _HTTP_OF_ONE_RUN
    return getattr(error, "error_code", None) in _OF_ONE_RUN


def _status_in(text: str) -> int:
    """The HTTP status in what MLflow says of an answer that is not its own; 0 without one.

    >>> _status_in("API request to endpoint /api/2.0/x failed with error code 413 != 200. Response")
    413
    """
    found = re.search(r"failed with error code (\d{3}) ", text)
    return int(found[1]) if found else 0
