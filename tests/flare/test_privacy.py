"""Every byte that a site sends is looked at: the backbone is in it, and nothing that belongs to the house."""

from collections.abc import Iterator

import pytest
import torch

from polyhead.deployment.audit import verify
from polyhead.flare.layout import AUDIT
from polyhead.manifest import read_manifest
from polyhead.study_file import load_study
from polyhead.training.tensor_file import memory_of
from tests.deployment.houses_by_hand import write_study
from tests.flare.houses import Houses, build, federation
from tests.flare.identity import with_module

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Houses, bytes]]:
    """A federation of three rounds, and all that site a sent."""
    folder = tmp_path_factory.mktemp("tapped")
    houses = build(folder, write_study(folder, 3, "ab"))
    tap = folder / "tap"
    tap.mkdir()
    try:
        houses.start("server", "b")
        with with_module("wiretap", "POLYHEAD_WIRETAP", tap):
            houses.start("a")
        with federation(houses, 0, 3, 3):
            pass
        yield houses, b"".join(file.read_bytes() for file in sorted(tap.iterdir()))
    finally:
        for name in list(houses.running):
            houses.kill(name)


def test_the_backbone_is_sent(tapped: tuple[Houses, bytes]) -> None:
    assert tapped[1].count(b"backbone.conv1.weight") >= 3


def test_no_value_of_the_head_is_sent(tapped: tuple[Houses, bytes]) -> None:
    houses, sent = tapped
    _, private = houses.state(0)
    for name, tensor in private["a"].model.items():
        raw = bytes(memory_of(tensor))
        # Two values side by side: one alone is four bytes, which chance may send.
        assert not [at for at in range(0, len(raw) - 4, 4) if raw[at : at + 8] in sent], name
        assert name.encode() not in sent


def test_no_state_of_the_optimizer_is_sent(tapped: tuple[Houses, bytes]) -> None:
    houses, sent = tapped
    for name, tensor in houses.state(0)[1]["a"].optimizer.items():
        if tensor.numel() >= 8 and torch.count_nonzero(tensor) > 4:
            assert bytes(memory_of(tensor))[:32] not in sent, name


def test_no_word_of_the_house_is_sent(tapped: tuple[Houses, bytes]) -> None:
    houses, sent = tapped
    manifest = load_study(houses.study).site[0].manifest
    table = read_manifest(manifest)
    words = {*table.findings, *table.frame["patient_id"], *table.frame["image"], str(manifest), manifest.name}
    assert not [word for word in words if len(word) > 3 and word.encode() in sent]


def test_the_record_names_every_message(tapped: tuple[Houses, bytes]) -> None:
    houses, sent = tapped
    found = verify(houses.kits.sites["a"] / AUDIT)
    # Whether it trains, three rounds, the end.
    assert found.messages == {"in": 5, "out": 5}
    assert found.bytes["out"] < len(sent) < 1.3 * found.bytes["out"]
