"""Initial weights in other people's names.

The files are written here with the names and shapes that torchvision and timm give (``imagenet_names.json``); timm's
ResNets and DenseNets have the same names as torchvision's.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polyhead.config import Model
from polyhead.errors import WeightsError
from polyhead.training.backbone import build_backbone
from polyhead.training.weights import load_weights
from tests.training.hostile_files import hostile

NAMES = json.loads((Path(__file__).parent / "imagenet_names.json").read_text())
BACKBONES = {"resnet18": "resnet18", "densenet121": "densenet121", "efficientnet_b0": "efficientnet-b0"}


def tensors_for(source: str) -> dict[str, torch.Tensor]:
    """Every tensor of a model, each filled with numbers of its own."""
    shapes = {name: [int(side) for side in shape.split("x") if side] for name, shape in NAMES[source].items()}
    torch.manual_seed(0)
    return {name: torch.rand(shape) if shape else torch.tensor(5) for name, shape in shapes.items()}


@pytest.mark.parametrize("source", NAMES)
def test_every_tensor_finds_its_place(source: str, tmp_path: Path) -> None:
    tensors = tensors_for(source)
    save_file(tensors, tmp_path / "weights.safetensors")
    backbone = build_backbone(Model(backbone=BACKBONES[source.split(":")[1]]), seed=0)
    left_over = load_weights(backbone, tmp_path / "weights.safetensors")
    assert len(left_over) == 2
    assert all(name.startswith(("fc.", "classifier.")) for name in left_over)
    loaded = sorted(float(tensor.sum()) for tensor in backbone.state_dict().values())
    expected = sorted(
        float(tensor.sum(dim=1, keepdim=True).sum() if name.endswith("conv1.weight") else tensor.sum())
        for name, tensor in tensors.items()
        if name not in left_over
    )
    assert loaded == pytest.approx(expected)


def test_a_grey_image_gets_the_response_of_three_equal_channels(tmp_path: Path) -> None:
    tensors = tensors_for("torchvision:resnet18")
    save_file(tensors, tmp_path / "weights.safetensors")
    backbone = build_backbone(Model(backbone="resnet18"), seed=0)
    load_weights(backbone, tmp_path / "weights.safetensors")
    grey = torch.rand(1, 1, 8, 8)
    colour = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), tensors["conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(backbone.get_submodule("conv1")(grey), colour, rtol=1e-5, atol=1e-5)


def test_a_backbone_of_ours_comes_back_bit_for_bit(tmp_path: Path) -> None:
    settings = Model(backbone="resnet10", width=0.125)
    ours = build_backbone(settings, seed=1)
    save_file(ours.state_dict(), tmp_path / "backbone.safetensors")
    other = build_backbone(settings, seed=2)
    assert load_weights(other, tmp_path / "backbone.safetensors") == []
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_everything_that_does_not_fit_is_named(tmp_path: Path) -> None:
    tensors = tensors_for("torchvision:resnet18")
    del tensors["layer1.0.conv1.weight"]
    tensors["layer9.weight"] = torch.zeros(1)
    tensors["bn1.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "weights.safetensors")
    backbone = build_backbone(Model(backbone="resnet18"), seed=0)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(WeightsError) as refusal:
        load_weights(backbone, tmp_path / "weights.safetensors")
    for part in ("missing: layer1.0.conv1.weight", "left over: layer9.weight", "(3,) instead of (64,): bn1.bias"):
        assert part in str(refusal.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_of_very_many_misfits_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    save_file({f"layer9.{n}": torch.zeros(1) for n in range(60)}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"left over: layer9\.49\n") as refusal:
        load_weights(tiny(), tmp_path / "weights.safetensors")
    assert len(str(refusal.value).splitlines()) == 52
    assert re.search(r"and \d+ more$", str(refusal.value))


def tiny(seed: int = 0) -> torch.nn.Module:
    return build_backbone(Model(backbone="resnet10", width=0.125), seed=seed)


def test_a_file_that_is_made_to_harm_is_refused(tmp_path: Path) -> None:
    backbone = tiny()
    for content in hostile().values():
        (tmp_path / "weights.safetensors").write_bytes(content)
        with pytest.raises(WeightsError, match=r"weights\.safetensors: "):
            load_weights(backbone, tmp_path / "weights.safetensors")


def test_a_file_far_larger_than_the_backbone_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "weights.safetensors").open("wb") as file:
        file.truncate(2**30)  # Of zeros that take no room.
    with pytest.raises(WeightsError, match="1,073,741,824 bytes; what belongs here has at most 27"):
        load_weights(tiny(), tmp_path / "weights.safetensors")


def test_double_precision_and_a_large_classifier_are_accepted(tmp_path: Path) -> None:
    ours = tiny(1).double().state_dict()
    save_file(ours | {"fc.weight": torch.zeros(22_000, 1536)}, tmp_path / "weights.safetensors")
    backbone = tiny(2)
    assert load_weights(backbone, tmp_path / "weights.safetensors") == ["fc.weight"]
    assert all(torch.equal(tensor.to(ours[name].dtype), ours[name]) for name, tensor in backbone.state_dict().items())


def test_far_more_tensors_than_the_backbone_has_are_refused_with_their_number(tmp_path: Path) -> None:
    network = build_backbone(Model(backbone="efficientnet-b0"), seed=0)
    save_file({f"a{n}": torch.zeros(1) for n in range(1000)}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="1,000 tensors instead of 3"):
        load_weights(network, tmp_path / "weights.safetensors")


def test_a_name_with_a_number_too_long_to_be_one_is_left_over(tmp_path: Path) -> None:
    save_file({f"blocks.0.{'9' * 5000}.conv_pw.weight": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"left over: blocks\.0\.999"):
        load_weights(build_backbone(Model(backbone="efficientnet-b0"), seed=0), tmp_path / "weights.safetensors")


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    ours = {name: tensor.clone() for name, tensor in tiny(1).state_dict().items()}
    ours["conv1.weight"][0, 0, 0, 0] = float("inf")
    save_file(ours, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"not finite: conv1\.weight"):
        load_weights(tiny(), tmp_path / "weights.safetensors")


def test_a_file_without_batch_norm_counters_leaves_them_at_zero(tmp_path: Path) -> None:
    ours = {name: tensor for name, tensor in tiny(1).state_dict().items() if not name.endswith("num_batches_tracked")}
    save_file(ours, tmp_path / "weights.safetensors")
    backbone = tiny(2)
    load_weights(backbone, tmp_path / "weights.safetensors")
    assert int(backbone.state_dict()["bn1.num_batches_tracked"]) == 0
    assert torch.equal(backbone.state_dict()["conv1.weight"], ours["conv1.weight"])


def test_into_group_norm_go_the_convolutions_of_a_network_with_batch_norm(tmp_path: Path) -> None:
    tensors = tensors_for("torchvision:resnet18")
    save_file(tensors, tmp_path / "weights.safetensors")
    backbone = build_backbone(Model(backbone="resnet18", norm="group"), seed=0)
    assert load_weights(backbone, tmp_path / "weights.safetensors") == ["fc.bias", "fc.weight"]
    state = backbone.state_dict()
    assert torch.equal(state["layer1.0.conv1.weight"], tensors["layer1.0.conv1.weight"])
    for name, layer in backbone.named_modules():
        if isinstance(layer, torch.nn.GroupNorm):
            assert (state[f"{name}.weight"] == 1).all()
            assert (state[f"{name}.bias"] == 0).all()


def test_of_a_network_with_group_norm_everything_comes_back(tmp_path: Path) -> None:
    settings = Model(backbone="resnet10", width=0.125, norm="group")
    theirs, ours = build_backbone(settings, seed=1), build_backbone(settings, seed=2)
    state = {name: tensor + 1 for name, tensor in theirs.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    assert load_weights(ours, tmp_path / "weights.safetensors") == []
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
