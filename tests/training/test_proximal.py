"""The proximal term: its gradient by hand, what it pulls, and what it leaves."""

import numpy as np
import pytest
import torch
from torch import nn

from polyhead.config import Training
from polyhead.training.dataset import SplitData
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, build_head, model_state
from polyhead.training.proximal import Pull, add_pull, cast_anchor
from tests.conftest import PLAIN

MU = 0.5


class Scale(nn.Module):
    """One feature an image: its mean, times a weight, through BatchNorm's buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))
        self.norm = nn.BatchNorm1d(1, affine=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.norm(images.mean(dim=(2, 3))) * self.weight
        return features


def model() -> SiteModel:
    head = build_head(1, ["Edema"], 0)
    # At 0 its gradient would be 0, whose sign is what Adam follows.
    nn.init.constant_(head.bias, 1.0)
    return SiteModel(Scale(), head, ["Edema"])


def data() -> SplitData:
    pixels = np.arange(0, 240, 15, np.uint8).repeat(16).reshape(16, 4, 4)
    labels = (np.arange(16) % 3 == 0).astype(np.float32)[:, None]
    names = tuple(map(str, range(16)))
    return SplitData(pixels, np.arange(16), labels, names, names)


def test_the_gradient_is_mu_times_the_way_from_where_the_round_began() -> None:
    one = model()
    anchor = cast_anchor(one, Pull(MU, frozenset({"backbone.weight", "backbone.norm.running_mean"})))
    assert [name for parameter, _ in anchor for name, own in one.named_parameters() if own is parameter] == [
        "backbone.weight"
    ]
    with torch.no_grad():
        one.backbone.weight += 3.0
        one.head.weight += 3.0
    one.backbone.weight.grad = torch.tensor([0.25])
    one.head.weight.grad = torch.tensor([[0.25]])
    add_pull(anchor, MU)
    # d/dw of mu / 2 * (w - 2)^2 at w = 5.
    assert one.backbone.weight.grad.tolist() == [0.25 + MU * 3.0]
    assert one.head.weight.grad.tolist() == [[0.25]]


def test_two_steps_are_those_of_the_whole_loss_with_its_term() -> None:
    """Held against PyTorch's own gradient of the loss with the term written out."""
    training = Training(batch_size=16, learning_rate=0.1, weight_decay=0.0, schedule="constant", augment=PLAIN)
    ours, theirs = model(), model()
    pull = Pull(MU, frozenset({"backbone.weight"}))
    loss, _ = train_locally(ours, data(), training, Stretch(0, 2, 2, (0, "a")), {}, pull=pull)
    begin = theirs.backbone.weight.detach().clone()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1)
    images = torch.from_numpy(data().pixels[data().rows]).unsqueeze(1).float() / 63.75 - 2
    labels, losses = torch.from_numpy(data().labels), []
    theirs.train()
    for _ in range(2):
        pos_weight = (labels == 0).sum() / (labels == 1).sum()
        plain = nn.functional.binary_cross_entropy_with_logits(theirs(images), labels, pos_weight=pos_weight)
        optimizer.zero_grad()
        (plain + MU / 2 * (theirs.backbone.weight - begin).square().sum()).backward()
        optimizer.step()
        losses.append(plain.item())
    for name, tensor in model_state(theirs).items():
        assert torch.allclose(model_state(ours)[name].float(), tensor.float(), atol=1e-5), name
    # What is reported is the loss on the images, as under every method.
    assert loss == pytest.approx(sum(losses) / 2, abs=1e-5)


def test_it_holds_back_what_it_names_and_nothing_else() -> None:
    training = Training(batch_size=8, learning_rate=0.1, augment=PLAIN)
    free, held = model(), model()
    train_locally(free, data(), training, Stretch(0, 6, 6, (0, "a")), {})
    train_locally(
        held, data(), training, Stretch(0, 6, 6, (0, "a")), {}, pull=Pull(1e3, frozenset({"backbone.weight"}))
    )
    moved = [abs(one.backbone.weight.item() - 2.0) for one in (free, held)]
    assert moved[1] < moved[0] / 2
    # BatchNorm's statistics follow the images alone.
    assert torch.equal(free.backbone.norm.running_mean, held.backbone.norm.running_mean)
