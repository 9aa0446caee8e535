"""Ctrl-C and termination that wait for a good moment."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["gently"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def gently(on_stop: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Let SIGINT and SIGTERM only be noted, until the work comes to where it can stop.

    The second signal stops at once. A signal that the process was started to ignore stays ignored. Only the main thread
    can do this; in another one nothing changes.

    Parameters
    ----------
    on_stop
        Told once, with a text for the person who waits.

    Yields
    ------
    Callable
        To be called where the work can stop: there it raises what was noted.

    Raises
    ------
    KeyboardInterrupt
        For SIGINT: from what is yielded, from anywhere at the second signal, and at the end if it was noted after the
        last call.
    SystemExit
        For SIGTERM, likewise, with exit code 143.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    noted: list[int] = []
    raised: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        if len(noted) > 1:
            raised.append(number)
            raise _exception_for(number)
        # A terminal that is gone, or was written to at this very moment, must not end what is to end gently.
        with contextlib.suppress(OSError, RuntimeError):
            on_stop("stopping after this step; again to stop at once")

    def stop_here() -> None:
        if noted:
            raised.append(noted[0])
            raise _exception_for(noted[0])

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, note)
        yield stop_here
    finally:
        for number, handler in before.items():
            # None: set by something other than Python, and not to be had again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if not raised:
        stop_here()


def _exception_for(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
