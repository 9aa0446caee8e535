"""The site's end of the engine: a question in, an update out."""

import logging
from pathlib import Path

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from polyhead.deployment.agreed import read_agreement
from polyhead.deployment.audit import record
from polyhead.deployment.hospital import Hospital, open_hospital, take_part
from polyhead.errors import RunError
from polyhead.federation.failure import describe_failure
from polyhead.flare.layout import AGREEMENT, AUDIT, SITE_FILE, STATES, local_folder
from polyhead.flare.messages import content_of, failure_message, read_question, update_message

__all__ = ["FederationExecutor"]

_log = logging.getLogger(__name__)


class FederationExecutor(Executor):
    """Takes part in rounds of one method with one seed; the engine makes it from the job's settings."""

    def __init__(self, method: str, seed: int) -> None:
        super().__init__()
        self._method = method
        self._seed = seed
        self._hospital: Hospital | None = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer a question, or say in words that may leave the house why there is no answer; record both."""
        root = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir())
        record(root / AUDIT, "in", *content_of(shareable))
        answer = self._answer(root, fl_ctx.get_identity_name(), shareable, abort_signal)
        # What is not on record does not leave.
        record(root / AUDIT, "out", *content_of(answer))
        return answer

    def _answer(self, root: Path, site: str, shareable: Shareable, abort_signal: Signal) -> Shareable:
        try:
            question = read_question(shareable)
            if self._hospital is None:
                self._hospital = _open(root, site, self._method, self._seed)
            update = take_part(self._hospital, question, lambda: _refuse_stopped(abort_signal))
            return update_message(update, question.shared)
        except Exception as problem:  # The engine would send its text, and end the job of all for some kinds.
            _log.info("failed: %s", problem, exc_info=problem)
            return failure_message(describe_failure(problem))


def _open(root: Path, site: str, method: str, seed: int) -> Hospital:
    local = local_folder(root)
    agreed = read_agreement(local / AGREEMENT)
    return open_hospital(agreed, site, local / SITE_FILE, root / STATES, method, seed)


def _refuse_stopped(abort_signal: Signal) -> None:
    if abort_signal.triggered:
        raise RunError("the server ended the segment.")
