"""The parting of a model into what is shared and what is private."""

import torch
from torch import nn

from polyhead.config import Model
from polyhead.training.backbone import build_backbone
from polyhead.training.model import SiteModel, batch_norm_names, build_head, model_state


def test_batch_norm_is_found_by_type_under_any_name() -> None:
    backbone = nn.Sequential()
    backbone.add_module("head_like_fc", nn.BatchNorm2d(2))
    backbone.add_module("bn", nn.Conv2d(2, 2, 1))
    assert batch_norm_names(backbone) == {
        f"head_like_fc.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_a_row_of_the_head_depends_on_its_finding_alone() -> None:
    both = build_head(16, ["Edema", "Mass"], 1, "a")
    turned = build_head(16, ["Mass", "Edema", "Nodule"], 1, "a")
    assert torch.equal(both.weight[0], turned.weight[1])
    assert torch.equal(both.weight[1], turned.weight[0])
    assert not torch.equal(both.weight[0], both.weight[1])
    assert not torch.equal(both.weight, build_head(16, ["Edema", "Mass"], 1, "b").weight)


def test_a_state_is_a_copy_that_training_does_not_reach() -> None:
    backbone = build_backbone(Model(backbone="resnet10", width=0.125), 0).to(memory_format=torch.channels_last)
    model = SiteModel(backbone, build_head(64, ["Edema"], 0), ["Edema"])
    state = model_state(model)
    kept = state["head.weight"].clone()
    with torch.no_grad():
        model.head.weight.add_(1)
    assert torch.equal(state["head.weight"], kept)
    assert all(tensor.is_contiguous() for tensor in state.values())
