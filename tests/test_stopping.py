"""Signals are noted, and raise where the work can stop."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from polyhead.stopping import gently

HANDLERS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in HANDLERS.items()}
    yield
    after = {number: signal.getsignal(number) for number in HANDLERS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == HANDLERS, "the handlers from before are not back"


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def steps(signals: Sequence[int], on_stop: Callable[[str], None], done: list[str]) -> None:
    """Take two steps; in the middle of the first the signals arrive."""
    with gently(on_stop) as stop_here:
        for step in ("first", "second"):
            stop_here()
            for number in signals if step == "first" else ():
                send(number)
                done.append(f"{step} goes on")
            done.append(step)


def ignore(text: str) -> None:
    pass


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_step_is_finished_before_it_stops(number: int, raised: type[BaseException]) -> None:
    told: list[str] = []
    done: list[str] = []
    with pytest.raises(raised) as found:
        steps([number], told.append, done)
    assert done == ["first goes on", "first"]
    assert told == ["stopping after this step; again to stop at once"]
    if raised is SystemExit:
        assert found.value.code == 143


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("second", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_second_signal_stops_at_once(first: int, second: int, raised: type[BaseException]) -> None:
    told: list[str] = []
    done: list[str] = []
    with pytest.raises(raised):
        steps([first, second], told.append, done)
    assert done == ["first goes on"]
    assert len(told) == 1


def test_a_signal_after_the_last_place_to_stop_is_not_lost() -> None:
    done = []

    def work() -> None:
        with gently(ignore):
            send(signal.SIGINT)
            done.append("all work")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["all work"]


def test_what_was_raised_and_dealt_with_is_not_raised_again() -> None:
    with gently(ignore) as stop_here:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stop_here()


def test_a_second_signal_that_was_dealt_with_is_not_raised_again() -> None:
    with gently(ignore):
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def test_an_error_of_the_work_goes_before_a_signal() -> None:
    def work() -> None:
        with gently(ignore):
            send(signal.SIGINT)
            print(1 / 0)

    with pytest.raises(ZeroDivisionError):
        work()


def test_without_a_signal_nothing_happens() -> None:
    with gently(pytest.fail) as stop_here:
        stop_here()


@pytest.mark.parametrize("problem", [BrokenPipeError, RuntimeError])
def test_a_terminal_that_cannot_be_written_to_ends_no_step(problem: type[Exception]) -> None:
    def on_stop(text: str) -> None:
        raise problem

    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        steps([signal.SIGINT], on_stop, done)
    assert done == ["first goes on", "first"]


def test_another_thread_changes_no_handler() -> None:
    seen = []

    def work() -> None:
        with gently(pytest.fail) as stop_here:
            stop_here()
            seen.append({number: signal.getsignal(number) for number in HANDLERS})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [HANDLERS]


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    code = (
        "import os, signal\nfrom polyhead.stopping import gently\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with gently(print) as stop_here:\n  os.kill(os.getpid(), signal.SIGINT)\n  stop_here()\n"
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_process_that_is_terminated_gently_ends_with_143() -> None:
    code = (
        "import os, signal\nfrom polyhead.stopping import gently\n"
        "with gently(print) as stop_here:\n  os.kill(os.getpid(), signal.SIGTERM)\n  print('done')\n  stop_here()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 143
    assert done.stdout.splitlines() == ["stopping after this step; again to stop at once", "done"]
