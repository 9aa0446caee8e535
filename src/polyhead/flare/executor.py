"""The site's end of the engine: a question in, an answer out."""

import logging
from pathlib import Path

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from polyhead.deployment.agreed import Agreed, read_agreement
from polyhead.deployment.audit import record
from polyhead.deployment.finishing import answer, evaluate_at_home
from polyhead.deployment.hospital import Hospital, open_hospital
from polyhead.deployment.question import Content, Question
from polyhead.errors import RunError
from polyhead.federation.failure import describe_failure
from polyhead.flare.layout import AGREEMENT, AUDIT, RUN, SITE_FILE, STATES, local_folder
from polyhead.flare.messages import answer_message, content_of, failure_message, read_question

__all__ = ["FederationExecutor"]

_log = logging.getLogger(__name__)


class FederationExecutor(Executor):
    """Answers questions about one method with one seed, or about all; the engine makes it."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[tuple[str, int], Hospital] = {}

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer a question, or say in words that may leave the house why there is no answer; record both."""
        root = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir())
        message = self._answer(root, fl_ctx.get_identity_name(), shareable, abort_signal)
        # What is not on record does not leave.
        record(root / AUDIT, "out", *content_of(message))
        return message

    def _answer(self, root: Path, site: str, shareable: Shareable, abort_signal: Signal) -> Shareable:
        try:
            # Within: a message that no record can hold is a stranger's, and gets no answer but that.
            record(root / AUDIT, "in", *content_of(shareable))
            question = read_question(shareable)
            agreed = read_agreement(local_folder(root) / AGREEMENT)
            content = self._content(root, site, agreed, question, abort_signal)
            return answer_message(content, question, agreed)
        except Exception as problem:  # The engine would send its text, and end the job of all for some kinds.
            _log.info("failed: %s", problem, exc_info=problem)
            return failure_message(describe_failure(problem))

    def _content(self, root: Path, site: str, agreed: Agreed, question: Question, abort_signal: Signal) -> Content:
        site_file = local_folder(root) / SITE_FILE
        if question.kind == "evaluate":
            return evaluate_at_home(agreed, site, site_file, root / RUN, question)
        whose = question.method, question.seed
        if whose not in self._open:
            self._open = {whose: open_hospital(agreed, site, site_file, root / STATES, *whose)}
        return answer(self._open[whose], question, root / RUN, lambda: _refuse_stopped(abort_signal))


def _refuse_stopped(abort_signal: Signal) -> None:
    if abort_signal.triggered:
        raise RunError("the server ended the segment.")
