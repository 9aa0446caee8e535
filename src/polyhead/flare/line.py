"""A session with the server, and what is done while the server does not answer: a word, patience, and an end."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from nvflare.fuel.flare_api.api_spec import NoConnection, SessionClosed
from nvflare.fuel.flare_api.flare_api import Session

from polyhead.errors import RunError

__all__ = ["SILENT", "Line"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
# Each try takes the engine five seconds; a server that was started anew answers within some twenty.
_WORD = 20.0

SILENT = (NoConnection, SessionClosed)
"""How the engine says that the server does not answer, or no longer knows who asks."""


class Line:
    """Asks the server, again where it does not answer.

    Parameters
    ----------
    patience
        Seconds without an answer after which it is given up.
    """

    def __init__(self, session: Session, patience: float) -> None:
        self.session = session
        self._patience = patience
        self._silent_since: float | None = None
        self._told = False

    def ask(self, question: Callable[[Session], _T]) -> _T | None:
        """Return the answer, or None if there is none yet.

        Raises
        ------
        RunError
            If there was none for longer than the patience.
        """
        try:
            answer = question(self.session)
        except SILENT as problem:
            self._wait_on(problem)
            return None
        if self._told:
            _log.warning("the server answers again.")
        self._silent_since, self._told = None, False
        return answer

    def _wait_on(self, problem: Exception) -> None:
        now = time.monotonic()
        self._silent_since = now if self._silent_since is None else self._silent_since
        silent = now - self._silent_since
        if silent > self._patience:
            raise RunError(
                f"the server has not answered for {silent:.0f} s ({problem}). See that its machine and `polyhead "
                "federation server` run, then give the same command again: it goes on after the last whole round."
            ) from problem
        if silent > _WORD and not self._told:
            self._told = True
            left = self._patience - silent
            _log.warning(
                "the server has not answered for %.0f s; trying on for another %.0f s. See that it runs.", silent, left
            )
