"""Backbones: what goes in, what comes out, what chance decides."""

import pytest
import torch

from polyhead.config import Model
from polyhead.errors import StudyError
from polyhead.training.backbone import build_backbone, feature_count

FEATURES = {"resnet18": 512, "resnet50": 2048, "densenet121": 1024, "efficientnet-b0": 1280}


@pytest.mark.parametrize(("name", "features"), FEATURES.items())
def test_one_channel_images_become_one_vector_each(name: str, features: int) -> None:
    backbone = build_backbone(Model(backbone=name), seed=0)
    assert feature_count(backbone) == features
    assert backbone(torch.zeros(2, 1, 64, 64)).shape == (2, features)


def test_width_scales_the_channels_of_a_resnet() -> None:
    assert feature_count(build_backbone(Model(backbone="resnet18", width=0.25), seed=0)) == 128


def test_first_convolution_has_the_stride_of_imagenet_models() -> None:
    backbone = build_backbone(Model(backbone="resnet18"), seed=0)
    assert backbone.get_submodule("conv1").stride == (2, 2)


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one = build_backbone(Model(backbone="resnet10", width=0.125), seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    same = build_backbone(Model(backbone="resnet10", width=0.125), seed=3).state_dict()
    other = build_backbone(Model(backbone="resnet10", width=0.125), seed=4).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_feature_count_leaves_batch_norm_alone() -> None:
    backbone = build_backbone(Model(backbone="resnet10", width=0.125), seed=0).train()
    feature_count(backbone)
    assert backbone.training
    assert backbone.state_dict()["bn1.num_batches_tracked"] == 0


def test_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(StudyError, match="closest: resnet18"):
        build_backbone(Model(backbone="resnet-18"), seed=0)


def test_width_of_a_network_that_has_none_is_refused() -> None:
    with pytest.raises(StudyError, match="only ResNets have a width"):
        build_backbone(Model(backbone="densenet121", width=0.5), seed=0)


def test_group_norm_replaces_every_batch_norm_by_type_and_nothing_else() -> None:
    plain, grouped = (build_backbone(Model(backbone="resnet18", norm=norm), seed=3) for norm in ("batch", "group"))
    assert grouped(torch.zeros(1, 1, 64, 64)).shape == (1, 512)
    ours, theirs = dict(grouped.named_modules()), dict(plain.named_modules())
    assert ours.keys() == theirs.keys()
    for name, layer in theirs.items():
        if isinstance(layer, torch.nn.BatchNorm2d):
            assert isinstance(ours[name], torch.nn.GroupNorm)
            assert ours[name].num_channels == layer.num_features
            assert layer.num_features / ours[name].num_groups >= 4
        else:
            assert type(ours[name]) is type(layer)
    assert torch.equal(ours["conv1"].weight, theirs["conv1"].weight)


def test_a_layer_that_does_more_than_batch_norm_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithActivation(torch.nn.BatchNorm2d):
        pass

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), WithActivation(8))
    monkeypatch.setattr("polyhead.training.backbone._builder", lambda model: lambda: network)
    with pytest.raises(StudyError, match=r"key 'model.norm'.*resnet18.*WithActivation"):
        build_backbone(Model(norm="group"), seed=0)
