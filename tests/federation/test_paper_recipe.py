"""`recipe = "paper"`: a round of the authors' update, by hand, on a model of two shared parameters."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from polyhead.config import StudyConfig
from polyhead.config_training import Training
from polyhead.federation.means import weighted_mean
from polyhead.federation.methods import METHODS, plan_for
from polyhead.federation.private_state import PrivateState
from polyhead.federation.site import Site, site_round
from polyhead.federation.start import part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.dataset import SplitData
from polyhead.training.model import SiteModel
from polyhead.training.optimizer import build_optimizer

A, B = 0.75, -0.25
HEAD = {"a": (1.5, 0.25), "b": (-0.5, 0.125)}
GREYS = {"a": [0, 30, 60, 90, 120, 150, 180, 255], "b": [255, 200, 190, 180, 90, 60, 20, 10]}
LABELS = {"a": [1, 0, 0, 0, 1, 0, 0, 0], "b": [0, 1, 1, 0, 1, 1, 0, 1]}
# A round in which a schedule that falls would have fallen.
LATE = 700
STUDY = StudyConfig.model_validate(
    {"name": "x", "recipe": "paper", "site": [{"name": "a", "manifest": "a.csv"}], "federation": {"rounds": 1000}}
)


class Line(nn.Module):
    """One feature an image: a line through its mean grey."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([A]))
        self.shift = nn.Parameter(torch.tensor([B]))
        self.register_buffer("unused", torch.tensor(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) * self.slope + self.shift


def model_of(site: str) -> SiteModel:
    head = nn.Linear(1, 1)
    with torch.no_grad():
        head.weight.fill_(HEAD[site][0])
        head.bias.fill_(HEAD[site][1])
    return SiteModel(Line(), head, ["Edema"])


def site_of(name: str) -> Site:
    """A site of eight images of one grey each: neither flip nor rotation changes those."""
    pixels = np.array(GREYS[name], np.uint8)[:, None, None].repeat(16, axis=1).repeat(16, axis=2)
    names = tuple(map(str, range(8)))
    split = SplitData(pixels, np.arange(8), np.array(LABELS[name], np.float32)[:, None], names, names)
    return Site(name, ("Edema",), ("Edema",), split, split, split)


def gradient(site: str) -> tuple[float, float]:
    """Return the gradient of the weighted cross-entropy in slope and shift, worked out on paper."""
    greys, labels = np.array(GREYS[site]) / 63.75 - 2, np.array(LABELS[site])
    weight, bias = HEAD[site]
    p = 1 / (1 + np.exp(-(weight * (A * greys + B) + bias)))
    positives = labels.sum()
    of_logit = np.where(labels == 1, (len(labels) - positives) / positives * (p - 1), p) / len(labels)
    return float((of_logit * weight * greys).sum()), float((of_logit * weight).sum())


def test_a_round_moves_each_parameter_by_adams_first_step_and_takes_the_mean() -> None:
    plan = plan_for(METHODS["ffl"], 0, STUDY.federation, STUDY.training, STUDY.privacy)
    rate = STUDY.training.learning_rate
    updates, steps = list[SiteUpdate](), list[int]()
    for name in "ab":
        model = model_of(name)
        shared, own = part_model(model, plan.sharing)
        # A later round, with an optimizer's state that must count for nothing.
        used = PrivateState(own.model, {"backbone.slope.exp_avg": torch.ones(1)}, LATE)
        update, after = site_round(site_of(name), model, plan, LATE, shared, used, lambda: steps.append(1))
        assert after.optimizer == {}
        updates.append(SiteUpdate(name, LATE, 8, update.loss, {n: t.clone() for n, t in update.state.items()}))
    assert len(steps) == 2
    mean = weighted_mean(updates, shared, plan.federation.weighting)
    for place, (entry, start) in enumerate((("backbone.slope", A), ("backbone.shift", B))):
        moves = []
        for name, update in zip("ab", updates, strict=True):
            g = gradient(name)[place]
            moves.append(-rate * g / (abs(g) + 1e-8))
            assert update.state[entry].item() - start == pytest.approx(moves[-1], abs=1e-7)
        assert mean[entry].item() == pytest.approx(start + sum(moves) / 2, abs=1e-7)


def test_adam_without_weight_decay_is_ours_bit_for_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(8, 8), nn.Linear(8, 8)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, Training(learning_rate=5e-5, weight_decay=0.0), {})
    adam = torch.optim.Adam(theirs.parameters(), lr=5e-5, fused=True)
    for _ in range(3):
        batch = torch.randn(4, 8)
        for one, step in ((ours, optimizer), (theirs, adam)):
            step.zero_grad()
            one(batch).square().sum().backward()
            step.step()
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.state_dict().items())
