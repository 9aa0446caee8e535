"""The lines between the processes of one house: its own user's, and nobody else's."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.f3.comm_error import CommError
from nvflare.fuel.f3.communicator import driver_mgr
from nvflare.fuel.f3.drivers.connector_info import ConnectorInfo, Mode

from polyhead.flare.inner import SETTINGS, InnerDriver, offer
from tests.flare.intruders import NOBODY, speak

SCHEME = SETTINGS["internal"]["scheme"]
WORDS = b"deploy this"


class House:
    """A process that listens, and answers whatever it is told."""

    def __init__(self) -> None:
        self.driver, self.heard, self.lines = InnerDriver(), [], 0
        url, again = InnerDriver.get_urls(SCHEME, {"host": "localhost", "connection_security": "clear"})
        assert url == again
        self.name = url.removeprefix(f"{SCHEME}://")
        self.address = f"polyhead-{self.name}"
        self.driver.register_conn_monitor(SimpleNamespace(state_change=self._changed))
        self.thread = threading.Thread(target=self.driver.listen, args=[connector(self.driver, self.name)], daemon=True)
        self.thread.start()
        wait_for(lambda: self.address in listening())

    def _changed(self, line: Any) -> None:
        self.lines += 1
        line.read_frame_loop = lambda: self._answer(line)

    def _answer(self, line: Any) -> None:
        while words := line.sock.recv(100):
            self.heard.append(words)
            line.sock.sendall(b"yes")


def connector(driver: InnerDriver, name: str, mode: Mode = Mode.PASSIVE) -> ConnectorInfo:
    return ConnectorInfo("one", driver, {"host": name}, mode, 0, 0, False, threading.Event())


def listening() -> str:
    with open("/proc/net/unix") as file:  # noqa: PTH123
        return file.read()


def wait_for(happened: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not happened():
        assert time.monotonic() - began < 30
        time.sleep(0.01)


@pytest.fixture
def house() -> Iterator[House]:
    opened = House()
    yield opened
    opened.driver.shutdown()
    opened.thread.join(10)
    opened.driver.server.server_close()


def test_a_process_of_the_same_user_is_heard(house: House) -> None:
    assert speak(house.address, WORDS) == b"yes"
    assert house.heard == [WORDS]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_process_of_another_user_is_refused_before_a_byte_is_read(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    assert speak(house.address, WORDS, NOBODY) == b""
    assert (house.heard, house.lines) == ([], 0)
    assert "refused a line of user 65534" in caplog.text
    # It goes on for others.
    assert speak(house.address, WORDS) == b"yes"


def test_each_end_holds_the_other_against_its_own_user(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    own, child = os.geteuid(), InnerDriver()
    child.register_conn_monitor(SimpleNamespace(state_change=lambda line: pytest.fail("it was taken")))
    monkeypatch.setattr("polyhead.flare.inner.os.geteuid", lambda: own + 1)
    with pytest.raises(CommError, match="another user listens"):
        child.connect(connector(child, house.name, Mode.ACTIVE))
    assert speak(house.address, WORDS) == b""
    assert (house.heard, house.lines) == ([], 0)


def test_a_child_speaks_with_its_parent(house: House) -> None:
    child, heard = InnerDriver(), []

    def changed(line: Any) -> None:
        if not heard:
            line.send_frame(b"hello")
            heard.append(line.sock.recv(100))
            line.close()

    child.register_conn_monitor(SimpleNamespace(state_change=changed))
    child.connect(connector(child, house.name, Mode.ACTIVE))
    assert heard == [b"yes"]


def test_each_end_reads_a_whole_frame_with_one_call(house: House) -> None:
    child, over, ends, read = InnerDriver(), threading.Event(), [], []

    def changed(line: Any) -> None:
        line.read_frame_loop = lambda: over.wait(30)
        ends.append(line.sock)

    def read_both_ways(line: Any) -> None:
        if over.is_set():
            return
        wait_for(lambda: bool(ends))
        # What the kernel holds at a time is less: the other end writes on while this one reads.
        for writer, reader in ((ends[0], line.sock), (line.sock, ends[0])):
            writing = threading.Thread(target=writer.sendall, args=[bytes(2**20)])
            writing.start()
            read.append(reader.recv_into(bytearray(2**20), 2**20))
            if read[-1] < 2**20:
                reader.close()
            writing.join(30)
        over.set()
        line.close()

    house.driver.register_conn_monitor(SimpleNamespace(state_change=changed))
    child.register_conn_monitor(SimpleNamespace(state_change=read_both_ways))
    child.connect(connector(child, house.name, Mode.ACTIVE))
    assert read == [2**20, 2**20]


def test_nothing_listens_on_a_port_and_no_file_is_left(house: House) -> None:
    assert house.driver.server.socket.family is socket.AF_UNIX
    assert house.driver.server.server_address[:1] == b"\0"


def test_the_engine_finds_it_once_it_was_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_mgr, "drivers", {})
    offer()
    offer()
    assert driver_mgr.find_driver_class(f"{SCHEME}://abc") is InnerDriver
    assert json.loads(json.dumps(SETTINGS)) == SETTINGS
