"""Initial weights in other people's names.

The files are written here with the names and shapes that torchvision and timm give (``imagenet_names.json``); timm's
ResNets and DenseNets have the same names as torchvision's.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polyhead.config import Model
from polyhead.errors import WeightsError
from polyhead.training.backbone import build_backbone
from polyhead.training.weights import load_weights

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


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    torch.save({"conv1.weight": Canary()}, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(build_backbone(Model(backbone="resnet10", width=0.125), seed=0), tmp_path / "weights.safetensors")
    assert not (tmp_path / "executed").exists()
