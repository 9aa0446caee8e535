"""Timing of steps: real training on noise, scaled to the study's batch."""

import pytest
import torch

from polyhead.config import Training
from polyhead.errors import StudyError
from polyhead.training import timing
from polyhead.training.backbone import build_backbone
from polyhead.training.timing import model_bytes, time_steps
from tests.conftest import TINY

CPU = Training(batch_size=8, device="cpu")


def clocked(monkeypatch: pytest.MonkeyPatch, an_image: float) -> list[tuple[int, int]]:
    """Replace training by a clock on which an image takes so long; give the batches and steps that were asked for."""
    asked: list[tuple[int, int]] = []

    def seconds(network: object, model: object, training: object, batch: int, steps: int) -> float:
        asked.append((batch, steps))
        return an_image * batch * steps

    monkeypatch.setattr(timing, "_seconds", seconds)
    return asked


def test_real_steps_take_time_and_change_no_random_state() -> None:
    before = torch.random.get_rng_state()
    found = time_steps(TINY, CPU, 2)
    assert 0 < found.seconds < 10
    assert (found.batch, found.device) == (8, "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_first_step_of_each_size_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = clocked(monkeypatch, 0.05)
    assert time_steps(TINY, CPU, 2).seconds == pytest.approx(0.4)
    assert asked == [(2, 1), (2, 1), (8, 1), (8, 5)]


def test_of_a_slow_network_smaller_batches_are_timed_and_scaled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = clocked(monkeypatch, 0.5)
    found = time_steps(TINY, CPU, 2)
    assert (found.batch, found.seconds) == (4, pytest.approx(4.0))
    assert asked[-1] == (4, 1)
    clocked(monkeypatch, 60.0)
    assert time_steps(TINY, CPU, 2).batch == 2


def test_of_a_fast_network_the_number_of_steps_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = clocked(monkeypatch, 1e-6)
    time_steps(TINY, CPU, 2)
    assert asked[-1] == (8, 20)


def test_a_batch_that_does_not_fit_is_a_setting_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(timing, "train_locally", full)
    with pytest.raises(StudyError, match=r"training\.batch_size.*do not fit into the memory of cpu"):
        time_steps(TINY, CPU, 2)


def test_bytes_are_those_of_the_tensors() -> None:
    backbone = build_backbone(TINY, 0)
    expected = sum(tensor.nbytes for tensor in backbone.state_dict().values())
    # 64 features, 3 findings, a bias each; 4 bytes a number.
    assert model_bytes(TINY, 3) == (expected, (64 * 3 + 3) * 4)
