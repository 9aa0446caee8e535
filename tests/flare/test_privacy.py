"""Every byte that a site sends is looked at: the backbone is in it, and nothing that belongs to the house."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from polyhead.deployment.audit import verify
from polyhead.deployment.budget import spent
from polyhead.errors import UpdateError
from polyhead.flare.layout import AUDIT, STATES
from polyhead.manifest import read_manifest
from polyhead.study_file import load_study
from polyhead.training.packed import unpack_tensors
from polyhead.training.tensor_file import memory_of
from tests.deployment.houses_by_hand import write_study
from tests.flare.houses import Houses, build, federation
from tests.flare.identity import with_module

pytestmark = pytest.mark.slow
ROUNDS = 3
NOISE = 'norm = "group"\n[privacy]\nnoise = 1.0\n'
# As the engine writes small numbers, true numbers, nothing, and names.
SMALL, TRUE, NOTHING = range(0x80), b"\xcb", b"\xc0"
EXAMPLES, LOSS = b"\xa8examples", b"\xa4loss"


@dataclass
class Tapped:
    """A federation, whether it is one with noise, and all that its site a sent."""

    houses: Houses
    noise: bool
    sent: bytes

    @property
    def record(self) -> list[dict[str, Any]]:
        """What the site has on record as sent with tensors."""
        lines = map(json.loads, (self.houses.kits.sites["a"] / AUDIT).read_text().splitlines())
        return [line for line in lines if line["direction"] == "out" and line["tensors"]]


@pytest.fixture(scope="module", params=["", NOISE], ids=["plain", "noise"])
def tapped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tapped]:
    folder = tmp_path_factory.mktemp("tapped")
    study = write_study(folder, ROUNDS, "ab")
    study.write_text(study.read_text().replace("[federation]", f"{request.param}[federation]"))
    houses = build(folder, study)
    tap = folder / "tap"
    tap.mkdir()
    try:
        houses.start("server", "b")
        with with_module("wiretap", "POLYHEAD_WIRETAP", tap):
            houses.start("a")
        with federation(houses, 0, ROUNDS, ROUNDS):
            pass
        yield Tapped(houses, bool(request.param), b"".join(file.read_bytes() for file in sorted(tap.iterdir())))
    finally:
        for name in list(houses.running):
            houses.kill(name)


def updates_in(sent: bytes) -> list[dict[str, torch.Tensor]]:
    """Read all packed tensors out of what was sent, in the order in which they stand there."""
    found = []
    for match in re.finditer(rb'\{"[^"]+": \{"dtype":', sent):
        begin = match.start() - 8
        data = match.start() + int.from_bytes(sent[begin : match.start()], "little")
        table = json.loads(sent[match.start() : data])
        end = data + max(entry["data_offsets"][1] for entry in table.values())
        found.append(unpack_tensors(np.frombuffer(sent[begin:end], np.uint8).copy(), UpdateError))
    return found


def test_the_backbone_is_sent(tapped: Tapped) -> None:
    assert tapped.sent.count(b"backbone.conv1.weight") >= ROUNDS


def test_no_value_of_the_head_is_sent(tapped: Tapped) -> None:
    _, private = tapped.houses.state(0)
    for name, tensor in private["a"].model.items():
        raw = bytes(memory_of(tensor))
        # Two values side by side: one alone is four bytes, which chance may send.
        assert not [at for at in range(0, len(raw) - 4, 4) if raw[at : at + 8] in tapped.sent], name
        assert name.encode() not in tapped.sent


def test_no_state_of_the_optimizer_is_sent(tapped: Tapped) -> None:
    for name, tensor in tapped.houses.state(0)[1]["a"].optimizer.items():
        if tensor.numel() >= 8 and torch.count_nonzero(tensor) > 4:
            assert bytes(memory_of(tensor))[:32] not in tapped.sent, name


def test_no_word_of_the_house_is_sent(tapped: Tapped) -> None:
    manifest = load_study(tapped.houses.study).site[0].manifest
    table = read_manifest(manifest)
    words = {*table.findings, *table.frame["patient_id"], *table.frame["image"], str(manifest), manifest.name}
    assert not [word for word in words if len(word) > 3 and word.encode() in tapped.sent]


def test_with_noise_neither_a_loss_nor_a_count_is_sent(tapped: Tapped) -> None:
    after = {name: re.findall(name + b"(.)", tapped.sent, re.DOTALL) for name in (EXAMPLES, LOSS)}
    if tapped.noise:
        assert after == {EXAMPLES: [b"\x01"] * ROUNDS, LOSS: [NOTHING] * ROUNDS}
    else:
        train = read_manifest(load_study(tapped.houses.study).site[0].manifest).split("train").height
        assert train in SMALL
        assert after == {EXAMPLES: [bytes([train])] * ROUNDS, LOSS: [TRUE] * ROUNDS}


def test_what_the_noise_is_drawn_of_is_not_sent_nor_what_is_spent(tapped: Tapped) -> None:
    home = tapped.houses.kits.sites["a"] / STATES
    answered = spent(home)
    assert (answered is not None) == tapped.noise
    if answered is not None:
        secret = (home / "noise.secret").read_bytes()
        assert not [at for at in range(len(secret) - 7) if secret[at : at + 8] in tapped.sent]
        assert answered.questions == ROUNDS
        assert b"epsilon" not in tapped.sent


def test_the_record_names_every_message(tapped: Tapped) -> None:
    found = verify(tapped.houses.kits.sites["a"] / AUDIT)
    # Whether it trains, the rounds, the end.
    assert found.messages == {"in": ROUNDS + 2, "out": ROUNDS + 2}
    assert found.bytes["out"] < len(tapped.sent) < 1.3 * found.bytes["out"]


def test_the_record_holds_every_tensor_that_was_sent_and_no_other(tapped: Tapped) -> None:
    sent = [
        [
            [name, str(one.dtype)[6:], list(one.shape), one.nbytes, hashlib.sha256(memory_of(one)).hexdigest()]
            for name, one in sorted(update.items())
        ]
        for update in updates_in(tapped.sent)
    ]
    assert len(sent) == ROUNDS
    assert sent == [line["tensors"] for line in tapped.record]
    shown = [(line["about"]["examples"], line["about"]["loss"]) for line in tapped.record]
    assert [examples == 1 and loss is None for examples, loss in shown] == [tapped.noise] * ROUNDS
