"""The server's end of the engine: questions out, answers in, each with a deadline."""

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Condition

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, SendOrder, Task
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.wf_comm_spec import WFCommSpec

from polyhead.deployment.agreed import Agreed, read_agreement
from polyhead.deployment.coordinator import Segment, run_segment
from polyhead.deployment.question import Question, Reply
from polyhead.deployment.results import run_evaluation
from polyhead.errors import RunError, UpdateError
from polyhead.flare.layout import AGREEMENT, STATES, local_folder
from polyhead.flare.messages import question_message, read_answer
from polyhead.training.packed import pack_tensors

__all__ = ["TASK", "FederationController"]

_log = logging.getLogger(__name__)

TASK = "question"
"""The engine's name for whatever a site is asked."""

_GLANCE = 0.5  # seconds between looks at who is gone
_NOT_HERE = "was not connected when the segment began. It takes part from the next one on; start the site."
_GONE = "it gives no sign of life. If its process ended, it comes back with the next segment."
# Characters of a site's reason that are kept: it is written into the events, which are read again and again.
_LONGEST = 1000
# Seconds that a site's process has to begin.
_START = 120.0


class FederationController(Controller):
    """Runs a segment of rounds, or the evaluation; the engine makes it from the job's settings.

    Parameters
    ----------
    method, seed, until, segment
        See `polyhead.deployment.coordinator.Segment`.
    deadline
        Seconds that a site has for a round.
    silence
        Seconds without a sign of life after which a site is taken for gone; it is asked again once it gives one.
    """

    def __init__(self, method: str, seed: int, until: int, segment: str, deadline: float, silence: float) -> None:
        super().__init__()
        self._segment = Segment(segment, method, seed, until)
        self._deadline = deadline
        self._silence = silence
        self._began = time.monotonic()
        self._heard: dict[str, float] = {}
        self._arrived: dict[Task, Shareable] = {}
        self._bell = Condition()

    def set_communicator(self, communicator: WFCommSpec) -> None:
        """Listen to the sites' signs of life: a site whose house went down is never reported as gone."""
        super().set_communicator(communicator)
        passed_on = communicator.client_is_active

        def listen(client_name: str, reason: str, fl_ctx: FLContext) -> None:
            self._heard[client_name] = time.monotonic()
            passed_on(client_name, reason, fl_ctx)

        communicator.client_is_active = listen

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: all is done in `control_flow`."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Run the segment."""
        root = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir())
        agreed = read_agreement(local_folder(root) / AGREEMENT)

        def carry(asked: Mapping[str, Question]) -> Iterator[Reply]:
            return self._carry(agreed, asked, fl_ctx, abort_signal)

        if self._segment.method:
            run_segment(agreed, self._segment, root / STATES, carry)
        else:
            run_evaluation(agreed, self._segment.name, root / STATES, carry)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: what counts is on disk already."""

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Drop an answer that came after its round, and say so."""
        _log.warning("site %s: an answer came too late, and is dropped.", client.name)

    def _carry(
        self, agreed: Agreed, asked: Mapping[str, Question], fl_ctx: FLContext, abort: Signal
    ) -> Iterator[Reply]:
        here = {client.name for client in fl_ctx.get_engine().get_clients()}
        # By task: what comes late for a round that is over is not taken for an answer of this one.
        self._arrived.clear()
        tasks = self._send(asked, here, fl_ctx)
        began = time.monotonic()
        try:
            for site in sorted(asked):
                message = self._wait(site, tasks[site], began, abort) if site in tasks else _NOT_HERE
                yield _reply(site, time.monotonic() - began, message, asked[site].kind, agreed)
        finally:
            for task in tasks.values():
                self.cancel_task(task)

    def _send(self, asked: Mapping[str, Question], here: set[str], fl_ctx: FLContext) -> dict[str, Task]:
        """Give each site that is here a task of its own: nobody learns what another was told."""
        tasks = {}
        packed = pack_tensors(next(iter(asked.values())).shared if asked else {})
        for site, question in asked.items():
            if site in here:
                task = Task(TASK, question_message(question, packed), result_received_cb=self._receive)
                self.send(task, fl_ctx, targets=[site], send_order=SendOrder.ANY)
                tasks[site] = task
        return tasks

    def _receive(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        with self._bell:
            self._arrived[client_task.task] = client_task.result
            # The engine would keep it to the end of the job.
            client_task.result = None
            self._bell.notify_all()

    def _wait(self, site: str, task: Task, began: float, abort: Signal) -> Shareable | str:
        """Return what a site sent, or why there is nothing."""
        while True:
            with self._bell:
                if task not in self._arrived:
                    self._bell.wait(_GLANCE)
                if task in self._arrived:
                    return self._arrived.pop(task)
            if abort.triggered:
                raise RunError("the segment was stopped from outside. The state before this round is kept.")
            if self._is_gone(site):
                return _GONE
            if time.monotonic() - began > self._deadline:
                return (
                    f"no answer within {self._deadline:g} s. Look whether the site is frozen or cut off, or raise the "
                    "deadline."
                )

    def _is_gone(self, site: str) -> bool:
        if self.get_client_disconnect_time(site):
            return True
        if site in self._heard:
            return time.monotonic() - self._heard[site] > self._silence
        return time.monotonic() - self._began > _START


def _reply(site: str, seconds: float, message: Shareable | str, kind: str, agreed: Agreed) -> Reply:
    if isinstance(message, str):
        return Reply(site, seconds, failure=message, silent=message not in (_GONE, _NOT_HERE))
    try:
        content, failure = read_answer(message, site, kind, agreed)
    except UpdateError as problem:
        content, failure = None, str(problem)
    except Exception as problem:  # A stranger's message may do anything to who reads it; the other sites go on.
        content, failure = None, f"what it sent cannot be read ({type(problem).__name__})."
    if content is None and len(failure) > _LONGEST:
        failure = f"{failure[:_LONGEST]} ..."
    return Reply(site, seconds, content, failure)
