"""From zero to a report by commands alone, as a person at a terminal gives them: real processes, TLS, on 127.0.0.1."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.deployment.houses_by_hand import write_study
from tests.flare.houses import free_ports

ROUNDS = 4
SITES = "ab"
COMMANDS = (
    *(("federation", name) for name in ("init", "server", "start", "status", "stop")),
    *(("site", name) for name in ("join", "audit")),
)
# -P: as the installed command does, look for no modules in the current folder.
POLYHEAD = (sys.executable, "-P", "-c", "from polyhead.cli import main; main()")


def polyhead(*given: object, without: str = "") -> subprocess.CompletedProcess[str]:
    """Give a command, and wait for its end; `without` names a package that is not there."""
    code = f"import sys; sys.modules[{without!r}] = None; " if without else ""
    command = [sys.executable, "-c", f"{code}from polyhead.cli import main; main()", *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@dataclass
class Terminals:
    """Commands that run in the foreground of terminals of their own."""

    folder: Path
    running: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def open(self, name: str, *given: object) -> None:
        with (self.folder / f"{name}.txt").open("wb") as said:
            self.running[name] = subprocess.Popen(
                [*POLYHEAD, *map(str, given)],
                stdout=said,
                stderr=said,
                stdin=subprocess.DEVNULL,
                env=environment(),
                cwd=self.folder,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text(errors="replace")

    def wait_for(self, name: str, words: str, seconds: float = 120) -> None:
        began = time.monotonic()
        while words not in self.said(name):
            assert self.running[name].poll() is None, f"{name} ended: {self.said(name)}"
            assert time.monotonic() - began < seconds, f"{name} never said {words!r}: {self.said(name)}"
            time.sleep(0.2)

    def wait_for_end(self, name: str, seconds: float = 60) -> int:
        return self.running.pop(name).wait(seconds)

    def close(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        self.running[name].send_signal(number)
        return self.wait_for_end(name)


@dataclass(frozen=True)
class Federation:
    """A study, its kits and the terminals."""

    study: Path
    kits: Path
    terminals: Terminals
    made: str

    def kit(self, site: str) -> Path:
        return self.kits / "sites" / site


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Kits, and a server that listens."""
    folder = tmp_path_factory.mktemp("commands")
    study = write_study(folder, ROUNDS, SITES)
    for site in SITES:
        (folder / f"{site}.toml").write_text(f'manifest = "{site}/manifest.csv"\n')
    kits, port = folder / "kits", free_ports(1)[0]
    made = polyhead("federation", "init", study, "--out", kits, "--port", port)
    assert made.returncode == 0, made.stderr
    terminals = Terminals(folder)
    try:
        yield Federation(study, kits, terminals, made.stdout)
    finally:
        for name in list(terminals.running):
            terminals.close(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example(command: tuple[str, str]) -> None:
    done = polyhead(*command, "--help")
    assert done.returncode == 0
    assert f"Example: polyhead {' '.join(command)}" in re.sub(r"\s+", " ", done.stdout)


@pytest.mark.parametrize(
    "given",
    [
        ("federation", "init", "study.toml", "--out", "kits"),
        ("federation", "server", "kits/server"),
        ("federation", "start", "study.toml", "kits/admin"),
        ("federation", "status", "kits/admin"),
        ("federation", "stop", "kits/admin"),
        ("site", "join", "kits/sites/a", "a.toml"),
    ],
)
def test_without_the_engine_a_command_says_how_to_install_it(given: tuple[str, ...]) -> None:
    done = polyhead(*given, without="nvflare")
    assert done.returncode == 2
    assert done.stderr == "error: NVIDIA FLARE is not installed here: pip install '.[nvflare]' in Polyhead's folder\n"


def test_init_says_who_gets_which_kit_and_what_to_keep_safe(federation: Federation) -> None:
    for kit in ("server", "admin", "authority", *(f"sites/{site}" for site in SITES)):
        assert kit in federation.made
    assert "keep it safe" in federation.made
    assert re.search(r"Certificates are valid until \d{4}-\d\d-\d\d\.", federation.made)
    assert "nvflare" not in federation.made.lower()


def test_init_overwrites_no_kits(federation: Federation) -> None:
    again = polyhead("federation", "init", federation.study, "--out", federation.kits)
    assert again.returncode == 1
    assert "never overwritten" in again.stderr
    assert again.stderr.count("\n") == 1


@pytest.mark.parametrize("option", [("--host", "no host"), ("--coordinator", "")])
def test_a_name_that_the_engine_refuses_is_one_line(option: tuple[str, str], tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text('name = "s"\n[[site]]\nname = "a"\n')
    done = polyhead("federation", "init", study, "--out", tmp_path / "kits", *option)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "kits").exists()


def test_a_site_needs_but_a_name_in_the_study_of_all(federation: Federation, tmp_path: Path) -> None:
    text = federation.study.read_text()
    (tmp_path / "study.toml").write_text(re.sub(r"manifest = .*\n", "", text))
    made = polyhead("federation", "init", tmp_path / "study.toml", "--out", tmp_path / "kits")
    assert made.returncode == 0
    agreement = Path("local", "agreement.json")
    ours, theirs = (kits / "sites" / "a" / agreement for kits in (tmp_path / "kits", federation.kits))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_study_that_differs_is_not_started(federation: Federation, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(federation.study.read_text().replace("local_steps = 1", "local_steps = 2"))
    done = polyhead("federation", "start", other, federation.kits / "admin", "--out", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "federation.local_steps: was 1, is 2" in done.stderr
    assert len(set(re.findall(r"\b[0-9a-f]{12}\b", done.stderr))) == 2


def test_data_with_errors_are_not_taken_into_a_federation(federation: Federation, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,patient_id,split,Edema\nabsent.png,1,train,7\n")
    site = tmp_path / "site.toml"
    site.write_text('manifest = "manifest.csv"\n')
    done = polyhead("site", "join", federation.kit("a"), site, "--yes")
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == f"error: {site}: the data has errors, shown above. Mend them, then join again."
    )
    assert not (federation.kit("a") / "local" / "site.toml").exists()


def test_nothing_leaves_unless_somebody_agrees(federation: Federation) -> None:
    done = polyhead("site", "join", federation.kit("a"), federation.study.with_name("a.toml"))
    assert done.returncode == 2
    assert "give --yes" in done.stderr
    assert not (federation.kit("a") / "local" / "site.toml").exists()


@pytest.fixture(scope="module")
def running(federation: Federation) -> None:
    """The server listens; whoever trusts the folder of a kit would run what was dropped into it."""
    for kit in (federation.kits / "server", *(federation.kit(site) for site in SITES), federation.study.parent):
        (kit / "torch.py").write_text(f"open({str(federation.study.with_name('planted'))!r}, 'w')\n")
    federation.terminals.open("server", "federation", "server", federation.kits / "server")
    federation.terminals.wait_for("server", "listening on port")


@pytest.fixture(scope="module")
def finished(federation: Federation, running: None) -> subprocess.CompletedProcess[str]:
    """The sites joined, and a study was started to its end."""
    for site in SITES:
        own = federation.study.with_name(f"{site}.toml")
        federation.terminals.open(site, "site", "join", federation.kit(site), own, "--yes")
    for site in SITES:
        federation.terminals.wait_for(site, f"as {site}. Ctrl-C stops the site.")
    out = federation.study.with_name("run")
    return polyhead(
        "federation", "start", federation.study, federation.kits / "admin", "--out", out, "--segment", ROUNDS
    )


@pytest.mark.slow
def test_a_second_server_is_refused_in_one_line(federation: Federation, running: None) -> None:
    again = polyhead("federation", "server", federation.kits / "server")
    assert again.returncode == 1
    assert "runs from this kit already" in again.stderr
    assert again.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_port_that_is_taken_is_not_shared(federation: Federation, running: None, tmp_path: Path) -> None:
    made = polyhead("federation", "init", federation.study, "--out", tmp_path / "kits", "--port", port_of(federation))
    assert made.returncode == 0
    other = polyhead("federation", "server", tmp_path / "kits/server")
    assert other.returncode == 1
    assert other.stderr.startswith(f"error: port {port_of(federation)}: Address already in use.")


@pytest.mark.slow
def test_a_site_of_another_federation_gives_up_in_one_line(
    federation: Federation, running: None, tmp_path: Path
) -> None:
    made = polyhead("federation", "init", federation.study, "--out", tmp_path / "kits", "--port", port_of(federation))
    assert made.returncode == 0
    done = polyhead("site", "join", tmp_path / "kits/sites/a", federation.study.with_name("a.toml"), "--yes")
    assert done.returncode == 1
    assert "is of another federation" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "kits/sites/a").glob("*.fl"))


def test_a_site_whose_server_is_nowhere_gives_up_in_one_line(federation: Federation, tmp_path: Path) -> None:
    made = polyhead("federation", "init", federation.study, "--out", tmp_path / "kits", "--host", "no-host.invalid")
    assert made.returncode == 0
    done = polyhead("site", "join", tmp_path / "kits/sites/a", federation.study.with_name("a.toml"), "--yes")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: host no-host.invalid is unknown here")


@pytest.mark.slow
def test_what_will_leave_is_shown_before_a_site_connects(
    federation: Federation, finished: subprocess.CompletedProcess[str]
) -> None:
    said = federation.terminals.said("a")
    leaving = said[said.index("What will leave a") : said.index("connected to")]
    assert "72" in leaving
    assert "0.31 MB" in leaving
    assert "Of the results leave: names of findings, AUROCs" in leaving
    agreement = (federation.kits / "admin" / "local" / "agreement.json").read_bytes()
    assert f"Agreement {hashlib.sha256(agreement).hexdigest()}" in leaving


@pytest.mark.slow
def test_a_study_ends_in_a_report(federation: Federation, finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stderr
    assert f"ffl, seed 0: {ROUNDS} of {ROUNDS} rounds are done." in finished.stdout
    report = federation.study.with_name("run") / "report.html"
    assert f"Report: {report}" in finished.stdout
    assert "ffl" in report.read_text()
    assert "nvflare" not in (finished.stdout + finished.stderr).lower()


@pytest.mark.slow
def test_predictions_stay_in_their_house(federation: Federation, finished: subprocess.CompletedProcess[str]) -> None:
    def predictions(folder: Path) -> list[Path]:
        return [path for path in folder.rglob("*") if "predictions" in path.name]

    assert all(predictions(federation.kit(site)) for site in SITES)
    assert not predictions(federation.study.with_name("run"))
    assert not predictions(federation.kits / "server")


@pytest.mark.slow
def test_status_says_who_is_here_and_how_far_it_is(
    federation: Federation, finished: subprocess.CompletedProcess[str]
) -> None:
    done = polyhead("federation", "status", federation.kits / "admin")
    assert done.returncode == 0
    assert "Connected: a, b. Not connected: none." in done.stdout
    assert f"{ROUNDS} of {ROUNDS}" in done.stdout
    assert not done.stderr


@pytest.mark.slow
def test_the_record_is_whole_until_a_line_is_changed(
    federation: Federation, finished: subprocess.CompletedProcess[str]
) -> None:
    record = federation.kit("a") / "audit.jsonl"
    whole = polyhead("site", "audit", federation.kit("a"))
    assert whole.returncode == 0
    lines = record.read_text().splitlines(keepends=True)
    assert json.loads(lines[-1])["sha256"] in whole.stdout
    record.write_text("".join([*lines[:2], lines[2].replace('"direction": "in"', '"direction": "out"'), *lines[3:]]))
    try:
        changed = polyhead("site", "audit", federation.kit("a"))
        assert changed.returncode == 1
        assert changed.stderr == f"error: {record}, line 3: was changed or cut off.\n"
    finally:
        record.write_text("".join(lines))


@pytest.mark.slow
def test_what_was_dropped_into_a_kit_is_never_run(
    federation: Federation, finished: subprocess.CompletedProcess[str]
) -> None:
    assert not federation.study.with_name("planted").exists()


@pytest.mark.slow
def test_a_site_that_is_stopped_leaves_no_process_and_can_join_again(
    federation: Federation, finished: subprocess.CompletedProcess[str]
) -> None:
    assert federation.terminals.close("b", signal.SIGINT) == 130
    assert "stopped." in federation.terminals.said("b")
    assert not running_from(federation.kit("b"))
    own = federation.study.with_name("b.toml")
    federation.terminals.open("b", "site", "join", federation.kit("b"), own, "--yes")
    federation.terminals.wait_for("b", "as b. Ctrl-C stops the site.")
    assert not [path for path in federation.kit("b").iterdir() if re.fullmatch(r"[0-9a-f-]{36}", path.name)]


@pytest.mark.slow
def test_stop_ends_all_of_it(federation: Federation, finished: subprocess.CompletedProcess[str]) -> None:
    done = polyhead("federation", "stop", federation.kits / "admin")
    assert done.returncode == 0
    for name in ("server", *SITES):
        assert federation.terminals.wait_for_end(name) == 0
    assert "the coordinator ended the federation." in federation.terminals.said("a")
    for kit in (federation.kits / "server", *map(federation.kit, SITES)):
        assert not running_from(kit)


def port_of(federation: Federation) -> int:
    settings = json.loads((federation.kits / "server" / "startup" / "fed_server.json").read_text())
    return int(settings["servers"][0]["service"]["target"].split(":")[1])


def running_from(kit: Path) -> list[int]:
    """Return the processes that were started from a kit."""
    return [one.pid for one in psutil.process_iter(["cmdline"]) if f"{kit}" in " ".join(one.info["cmdline"] or ())]
