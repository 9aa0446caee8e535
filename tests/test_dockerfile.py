"""The image for server and sites, as far as it can be held against the project without being built."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
INSTRUCTIONS = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
NO_NAME = """
import os, pwd
def unknown(user):
    raise KeyError(user)
pwd.getpwuid = unknown
for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
    os.environ.pop(name, None)
os.environ |= {given}
import monai.networks.nets, torch, torch._dynamo
"""


def instructions(text: str) -> list[tuple[str, str]]:
    """Part a Dockerfile into instructions and what stands behind them, on one line each."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = []
    for line in re.sub(r"\\\n\s*", "", lines).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            assert name in INSTRUCTIONS, line
            assert rest, line
            found.append((name, rest.strip()))
    return found


@pytest.fixture(scope="module")
def image() -> list[tuple[str, str]]:
    return instructions((ROOT / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def of(image: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for kind, rest in image if kind == name]


def variables(image: list[tuple[str, str]]) -> dict[str, str]:
    return dict(one.split("=", 1) for rest in of(image, "ENV") for one in shlex.split(rest))


def test_it_begins_with_a_python_that_the_project_allows(image: list[tuple[str, str]], project: dict[str, Any]) -> None:
    assert image[0][0] == "FROM"
    (base,) = of(image, "FROM")
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim", base)
    assert version
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])
    assert least
    assert tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))


def test_what_is_copied_is_there_and_is_all_that_the_package_is_built_of(
    image: list[tuple[str, str]], project: dict[str, Any]
) -> None:
    copied = {name for rest in of(image, "COPY") for name in rest.split()[:-1]}
    assert not [name for name in copied if not (ROOT / name).exists()]
    assert copied >= {"pyproject.toml", "src", "constraints.txt", project["readme"], *project["license-files"]}
    # By name: whatever else lies beside the checkout, kits among it, stays outside.
    assert not copied & {".", "*"}


def test_it_installs_pinned_versions_and_what_any_study_needs(
    image: list[tuple[str, str]], project: dict[str, Any]
) -> None:
    installs = [command for rest in of(image, "RUN") for command in rest.split("&&") if "pip install" in command]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in command for command in installs)
    extras = re.search(r"'\.\[([\w,]+)\]'", installs[-1])
    assert extras
    # Those of a deployment, and of a study with noise in it.
    assert set(extras[1].split(",")) == {"nvflare", "privacy"} <= project["optional-dependencies"].keys()
    assert not [command for command in installs if re.search(r"https?://", command)]


def test_it_runs_as_nobody_in_particular_and_holds_no_secret(image: list[tuple[str, str]]) -> None:
    (user,) = of(image, "USER")
    (made,) = [rest for rest in of(image, "RUN") if rest.startswith("useradd ")]
    # A number: who runs it can see that it is not root's.
    assert int(user) > 0
    assert f"--uid {user} " in made
    # From here on only what is said, nothing that is done as root.
    assert not [kind for kind, _ in image[image.index(("USER", user)) :] if kind in ("RUN", "COPY")]
    words = " ".join(rest for kind, rest in image if kind in ("ARG", "ENV")).lower()
    assert not re.search(r"secret|token|password|passwd|key", words)


def test_it_ends_in_the_projects_own_command(image: list[tuple[str, str]], project: dict[str, Any]) -> None:
    (command,), (options,) = of(image, "ENTRYPOINT"), of(image, "CMD")
    assert json.loads(command) == list(project["scripts"])
    assert json.loads(options) == ["--help"]
    assert of(image, "STOPSIGNAL") == ["SIGTERM"]


def test_it_works_for_a_user_whom_the_image_does_not_know(image: list[tuple[str, str]]) -> None:
    """As `docker run --user` makes one: without a name and a home, which libraries ask for when they are imported."""
    assert variables(image)["HOME"] == "/tmp"  # noqa: S108  all users may write there, and it goes with the container
    given = {name: value for name, value in variables(image).items() if name in ("USER", "HOME")}
    for known, works in ((given, True), ({}, False)):
        done = subprocess.run(
            [sys.executable, "-c", NO_NAME.format(given=known)], capture_output=True, text=True, timeout=300
        )
        assert (done.returncode == 0) == works, done.stderr


@pytest.mark.parametrize("text", ["ADD . /", "FROM", "RUN a \\\n    && b\nRUNE c"])
def test_what_is_no_instruction_of_ours_is_seen(text: str) -> None:
    with pytest.raises(AssertionError):
        instructions(text)


def test_the_page_runs_it_as_it_is() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    runs = re.findall(r"^docker run (.*)$", page, re.MULTILINE)
    assert len(runs) == 2
    for run in runs:
        words = shlex.split(run)
        # Ended processes are cleared away, and files in the kit stay those of who owns it.
        assert "--init" in words
        assert words[words.index("--user") + 1] == "$(id -u):$(id -g)"
        command = words[words.index("polyhead") + 1 :]
        assert command[:2] in (["federation", "server"], ["site", "join"])
        assert command[2] in {one.split(":")[1] for one in words if re.match(r"\$PWD/.*:/", one)}
