"""A server that goes away under a running command: it is said soon, waited for, and given up in plain words."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import NoConnection, SessionClosed

from polyhead.deployment.agreed import Agreed, agreement_of, read_agreement
from polyhead.errors import RunError
from polyhead.flare import line, supervisor
from polyhead.flare.line import Line
from polyhead.flare.supervisor import Patience, Post, run_federation, session_of
from polyhead.study_file import load_study
from tests.deployment.houses_by_hand import write_study

GONE = (NoConnection("cannot connect to server"), SessionClosed("the session is closed on server"))
# Seconds that the engine tries before it says so.
TRY = 5.0


@dataclass
class Clock:
    """Stands in for the module `time`: sleeping takes none."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 10_000, "it waits for ever"


@dataclass
class Server:
    """Stands in for a session: three sites are connected, a job runs on, until it is gone."""

    clock: Clock
    gone: Callable[[str], Exception | None]
    asked: list[str] = field(default_factory=list)

    def _answer(self, question: str, answer: Any) -> Any:
        self.asked.append(question)
        problem = self.gone(question)
        if problem:
            self.clock.now += TRY
            raise problem
        return answer

    def get_connected_client_list(self) -> Any:
        return self._answer("sites", [SimpleNamespace(name=name, last_connect_time=1.0) for name in "abc"])

    def get_system_info(self) -> Any:
        return self._answer("began", SimpleNamespace(server_info=SimpleNamespace(start_time=1.0)))

    def submit_job(self, folder: str) -> Any:
        return self._answer("submit", "job-1")

    def get_job_meta(self, job: str) -> Any:
        return self._answer("job", {"status": "RUNNING"})

    def abort_job(self, job: str) -> Any:
        return self._answer("abort", None)

    def close(self) -> None:
        self.asked.append("close")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (supervisor, line):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def said(clock: Clock) -> Iterator[list[tuple[float, str]]]:
    """What was said, and when."""
    heard: list[tuple[float, str]] = []
    ear = logging.Handler()
    ear.emit = lambda record: heard.append((clock.now, record.getMessage()))  # type: ignore[method-assign]
    log = logging.getLogger("polyhead.flare")
    log.addHandler(ear)
    yield heard
    log.removeHandler(ear)


@pytest.fixture(scope="module")
def agreed(tmp_path_factory: pytest.TempPathFactory) -> Agreed:
    folder = tmp_path_factory.mktemp("study")
    file = folder / "agreement.json"
    file.write_text(agreement_of(load_study(write_study(folder, 3))))
    return read_agreement(file)


def run(server: Server, agreed: Agreed, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "new_secure_session", lambda *given, **named: server)
    run_federation(Post(folder, "c@example", folder), agreed, "ffl", 0, Patience(server=120.0), None, print)


@pytest.mark.parametrize("problem", GONE, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("question", ["sites", "job"])
def test_a_server_that_goes_away_is_spoken_of_soon_and_given_up_in_the_end(
    question: str,
    problem: Exception,
    clock: Clock,
    said: list[tuple[float, str]],
    agreed: Agreed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = clock.now
    server = Server(clock, lambda asked: problem if asked == "abort" or asked == question else None)
    with pytest.raises(RunError, match=r"has not answered for 1[23]. s .* give the same command again"):
        run(server, agreed, tmp_path, monkeypatch)
    (at,) = (when for when, words in said if "the server has not answered" in words)
    assert at - began <= 30
    assert clock.now - began <= 120 + 4 * TRY
    assert ("submit" in server.asked, "abort" in server.asked) == (question == "job",) * 2
    assert server.asked[-1] == "close"


@pytest.mark.parametrize("problem", GONE, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("question", ["submit", "began"])
def test_a_server_that_goes_away_elsewhere_is_no_fault_of_polyhead(
    question: str, problem: Exception, clock: Clock, agreed: Agreed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(clock, lambda asked: problem if asked == question else None)
    with pytest.raises(RunError, match=r"stopped answering .* give the same command again"):
        run(server, agreed, tmp_path, monkeypatch)
    assert server.asked[-1] == "close"


def test_so_it_is_for_every_command_that_asks(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(clock, lambda asked: GONE[0])
    monkeypatch.setattr(supervisor, "new_secure_session", lambda *given, **named: server)
    with (
        pytest.raises(RunError, match="stopped answering"),
        session_of(Post(tmp_path, "c@example", tmp_path)) as session,
    ):
        session.get_system_info()
    assert server.asked == ["began", "close"]


def test_a_server_that_comes_back_is_welcome_however_often(clock: Clock, said: list[tuple[float, str]]) -> None:
    away = False
    server = Server(clock, lambda asked: GONE[0] if away else None)
    one = Line(server, 120.0)
    for _ in range(3):
        away, until = True, clock.now + 100
        while clock.now < until:
            assert one.ask(lambda session: session.get_job_meta("job-1")) is None
        away = False
        assert one.ask(lambda session: session.get_job_meta("job-1")) == {"status": "RUNNING"}
    words = [words for _, words in said]
    assert [" again" in one for one in words] == [False, True] * 3


def test_a_short_silence_is_not_spoken_of(clock: Clock, said: list[tuple[float, str]]) -> None:
    fates = iter([GONE[0], GONE[0], None])
    one = Line(Server(clock, lambda asked: next(fates)), 120.0)
    assert [one.ask(lambda session: session.submit_job("")) for _ in range(3)] == [None, None, "job-1"]
    assert not said
