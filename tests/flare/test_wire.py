"""What happens on the way between a site and the server: listened to, changed, repeated, cut."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal

import tests.flare.houses
from polyhead.deployment.agreed import plan_of
from polyhead.deployment.audit import verify
from polyhead.deployment.question import Question
from polyhead.federation.start import initial_shared
from polyhead.flare.executor import FederationExecutor
from polyhead.flare.layout import AUDIT, STATES
from polyhead.flare.messages import arrays_of, question_message, read_answer
from polyhead.flare.supervisor import Patience
from tests.deployment.houses_by_hand import differences, simulated, write_study
from tests.flare.houses import Houses, build, federation, free_ports, wait_until
from tests.flare.identity import output, ports_of, wait_for

pytestmark = pytest.mark.slow
ROUNDS, LENGTH = 24, 12
CUT = 15  # seconds
APPLICATION_DATA = 23
# A record of this size can only be a part of an update: all else that a site says is short.
LONG = 8000


@dataclass
class Way:
    """The way from one site to the server: every record of TLS passes through here."""

    port: int
    to: int
    recorded: list[tuple[int, bytes]] = field(default_factory=list)
    fault: str = ""
    hit: int | None = None
    ended: set[int] = field(default_factory=set)
    cut: bool = False
    open: dict[int, tuple[socket.socket, socket.socket]] = field(default_factory=dict)

    def start(self) -> socket.socket:
        door = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._welcome, args=(door,), daemon=True).start()
        return door

    def _welcome(self, door: socket.socket) -> None:
        number = 0
        with suppress(OSError):
            while True:
                site, _ = door.accept()
                try:
                    # The server may not be there yet.
                    server = None if self.cut else socket.create_connection(("127.0.0.1", self.to))
                except OSError:
                    server = None
                if server is None:
                    site.close()
                    continue
                number += 1
                self.open[number] = site, server
                for pump in (self._outward, self._inward):
                    threading.Thread(target=pump, args=(number, site, server), daemon=True).start()

    def _outward(self, number: int, site: socket.socket, server: socket.socket) -> None:
        """From the site to the server, record by record."""
        with suppress(OSError), site.makefile("rb") as stream:
            while len(head := stream.read(5)) == 5:
                record = head + stream.read(int.from_bytes(head[3:]))
                self.recorded.append((number, record))
                server.sendall(self._with_fault(number, record))
        self._close(number)

    def _with_fault(self, number: int, record: bytes) -> bytes:
        if not self.fault or record[0] != APPLICATION_DATA or len(record) < LONG:
            return record
        fault, self.fault, self.hit = self.fault, "", number
        if fault == "repeated":
            return record + record
        middle = len(record) // 2
        return record[:middle] + bytes([record[middle] ^ 1]) + record[middle + 1 :]

    def _inward(self, number: int, site: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while some := server.recv(2**16):
                site.sendall(some)
        self._close(number)

    def _close(self, number: int) -> None:
        self.ended.add(number)
        for end in self.open.pop(number, ()):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut_all(self) -> None:
        self.cut = True
        for number in list(self.open):
            self._close(number)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Houses, Way]]:
    """A federation whose site b reaches the server through a `Way`."""
    folder = tmp_path_factory.mktemp("wire")
    before, os.environ["OMP_NUM_THREADS"] = torch.get_num_threads(), "1"
    torch.set_num_threads(1)
    study = write_study(folder, ROUNDS)
    study.write_text(study.read_text().replace("methods =", "seeds = [0, 1, 2]\nmethods ="))
    houses = build(folder, study)
    # What was lost on the way is sent again after so many seconds, instead of two minutes.
    again = {"NVFLARE_SUBMIT_TASK_RESULT_TIMEOUT": "4", "NVFLARE_GET_TASK_TIMEOUT": "4"}
    os.environ |= again
    between = Way(free_ports(1)[0], ports_of(houses)[0])
    file = houses.kits.sites["b"] / "startup" / "fed_client.json"
    file.write_text(file.read_text().replace(f"localhost:{between.to}", f"localhost:{between.port}"))
    door = between.start()
    try:
        houses.start("server", *houses.kits.sites)
        yield houses, between
    finally:
        for name in list(houses.running):
            houses.kill(name)
        between.cut_all()
        door.close()
        torch.set_num_threads(before)
        for name in ("OMP_NUM_THREADS", *again):
            del os.environ[name]


def spoil(between: Way, fault: str) -> None:
    """Spoil the next long record, and see that its line is given up."""
    between.hit, between.fault = None, fault
    wait_for("a part of an update passes", lambda: between.hit is not None)
    wait_for("the line is given up", lambda: between.hit in between.ended, 10)


def hold_against_simulate(houses: Houses, seed: int, folder: Path) -> None:
    counted = [event for event in houses.events(seed) if event["event"] == "round"]
    assert [event["round"] for event in counted] == list(range(ROUNDS))
    assert all([row["site"] for row in event["rows"]] == ["a", "b", "c"] for event in counted)
    wanted = simulated(houses.study, folder / "simulated", houses.absent(seed), seed)
    assert not differences(wanted, houses.state(seed))


def test_a_record_changed_or_repeated_on_the_way_is_refused_and_counts_nowhere(
    way: tuple[Houses, Way], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    houses, between = way
    monkeypatch.setattr(tests.flare.houses, "PATIENCE", Patience(sites=60, deadline=20, silence=8, start=90))
    with federation(houses, 0, ROUNDS, LENGTH):
        wait_until(houses, 0, 3)
        assert not between.ended
        spoil(between, "changed")
        wait_until(houses, 0, LENGTH + 3)
        spoil(between, "repeated")
    assert {site for _, site in houses.absent(0)} <= {"b"}
    assert "Traceback" not in output(houses.kits.server)
    hold_against_simulate(houses, 0, tmp_path)


def test_who_listens_on_the_way_reads_nothing(way: tuple[Houses, Way]) -> None:
    heard = b"".join(record for _, record in way[1].recorded)
    assert len(heard) > ROUNDS * LONG
    assert not [word for word in (b"backbone", b"polyhead", b"agreement") if word in heard]


def test_a_whole_conversation_sent_again_opens_nothing(way: tuple[Houses, Way]) -> None:
    houses, between = way
    (first, *_) = between.recorded
    again = b"".join(record for number, record in between.recorded if number == first[0])[: 2**20]
    before = output(houses.kits.server).count(" joined")
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", between.to), timeout=10) as line, suppress(ConnectionError):
        threading.Thread(target=lambda: _send(line, again), daemon=True).start()
        while some := line.recv(2**16):
            answer += some
    # Its half of a handshake, which is public, and the end.
    assert len(answer) < 2**13
    assert output(houses.kits.server).count(" joined") == before


def _send(line: socket.socket, content: bytes) -> None:
    with suppress(OSError):
        line.sendall(content)


def test_a_network_that_was_cut_for_a_while_costs_no_round(
    way: tuple[Houses, Way], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    houses, between = way
    monkeypatch.setattr(tests.flare.houses, "PATIENCE", Patience(sites=60, deadline=90, silence=40, start=90))
    with federation(houses, 1, ROUNDS, ROUNDS) as segments:
        wait_until(houses, 1, 5)
        between.cut_all()
        time.sleep(CUT)
        assert houses.rounds_done(1) < ROUNDS
        between.cut = False
    assert segments == [1]
    assert not houses.absent(1)
    hold_against_simulate(houses, 1, tmp_path)


def test_a_question_that_comes_twice_is_answered_alike_and_leaves_one_state(way: tuple[Houses, Way]) -> None:
    houses, _ = way
    kit, agreed = houses.kits.sites["c"], houses.agreed
    shared = initial_shared(agreed.model, plan_of(agreed, "ffl", 2).sharing, 2, ["any"])
    question = question_message(Question(agreed.sha256, "ffl", 2, 0, 0, (), shared), arrays_of(shared))
    context = FLContext()
    context.set_prop(FLContextKey.WORKSPACE_OBJECT, SimpleNamespace(get_root_dir=lambda: str(kit)))
    context.set_prop(ReservedKey.IDENTITY_NAME, "c")
    executor, before = FederationExecutor(), verify(kit / AUDIT).messages
    answers = [executor.execute("round", question, context, Signal()) for _ in range(2)]
    one, other = (read_answer(answer, "c", "round", agreed)[0] for answer in answers)
    assert one.examples == other.examples
    assert one.loss == other.loss
    assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
    assert [file.name for file in (kit / STATES / "ffl" / "seed-2").rglob("private-*")] == ["private-1.safetensors"]
    after = verify(kit / AUDIT).messages
    assert {way: after[way] - before[way] for way in after} == {"in": 2, "out": 2}
