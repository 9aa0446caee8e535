"""Initial weights of a backbone from a safetensors file: ours, or an ImageNet model's.

Names as torchvision and timm give them are understood for the networks of `polyhead.training.backbone`. ResNets and
DenseNets then compute the same function as theirs. MONAI's EfficientNets add 1e-3 to a variance where both others
add 1e-5, so there the weights are a start, not the same function.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from polyhead.errors import WeightsError
from polyhead.training.tensor_file import MOST_HEADER_BYTES, read_tensors

__all__ = ["load_weights", "misfits", "state_bytes"]

_SHOWN_MISFITS = 50
# A classifier of 22,000 classes on 1,536 features, in double precision.
_CLASSIFIER_BYTES = 2**28

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_CLASSIFIER = re.compile(r"(fc|classifier(\.\d+)?|head(\.fc)?)\.(weight|bias)")
# torchvision's position in an EfficientNet block, and timm's name there, for blocks that expand and those that do not.
_EXPANDING = {
    **{"block.0.0": "_expand_conv", "block.0.1": "_bn0", "block.1.0": "_depthwise_conv", "block.1.1": "_bn1"},
    **{"block.2.fc1": "_se_reduce", "block.2.fc2": "_se_expand", "block.3.0": "_project_conv", "block.3.1": "_bn2"},
    **{"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"},
    **{"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand", "conv_pwl": "_project_conv", "bn3": "_bn2"},
}
_PLAIN = {
    **{"block.0.0": "_depthwise_conv", "block.0.1": "_bn1", "block.1.fc1": "_se_reduce", "block.1.fc2": "_se_expand"},
    **{"block.2.0": "_project_conv", "block.2.1": "_bn2"},
    **{"conv_dw": "_depthwise_conv", "bn1": "_bn1", "se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"},
    **{"conv_pw": "_project_conv", "bn2": "_bn2"},
}
_EFFICIENTNET_ENDS = {
    **{"features.0.0": "_conv_stem", "features.0.1": "_bn0", "features.8.0": "_conv_head", "features.8.1": "_bn1"},
    **{"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"},
}


def load_weights(backbone: nn.Module, path: Path) -> list[str]:
    """Load initial weights into a backbone.

    A first convolution of three colour channels is summed to one, which gives a grey image the response that the
    same image had in three equal channels. Counters of BatchNorm may be absent; they start at 0 then. Where the
    backbone has GroupNorm and the file the statistics of a BatchNorm, that layer begins at scale 1 and shift 0: the
    file's own mean nothing without its statistics.

    Returns
    -------
    list of str
        Tensors of the file that were left over: the classifier of an ImageNet model.

    Raises
    ------
    WeightsError
        If the file is not safetensors, or larger than the backbone in double precision with a large classifier; or any
        other tensor is left over, missing or of another shape; all are named, up to 50.
    """
    wanted = backbone.state_dict()
    most_bytes = 2 * state_bytes(wanted) + _CLASSIFIER_BYTES + MOST_HEADER_BYTES
    tensors = read_tensors(path, WeightsError, most_bytes=most_bytes)
    # A BatchNorm has five entries where a GroupNorm has two.
    group_norms = sum(isinstance(layer, nn.GroupNorm) for layer in backbone.modules())
    if len(tensors) > 2 * (len(wanted) + 3 * group_norms):
        raise WeightsError(
            f"{path}: does not fit the backbone: {len(tensors):,} tensors instead of {len(wanted):,}. "
            "Name the weights of this backbone, or the backbone of these weights."
        )
    if set(tensors) != set(wanted):
        tensors = {_our_name(name, wanted): tensor for name, tensor in tensors.items()}
    tensors = _without_batch_norm(tensors, backbone)
    left_over = [name for name in tensors if _CLASSIFIER.fullmatch(name) and name not in wanted]
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")}
    found = {name: tensor for name, tensor in tensors.items() if name not in left_over}
    fitting = counters | {
        name: _fit(tensor, wanted[name]) if name in wanted else tensor for name, tensor in found.items()
    }
    if problems := misfits(fitting, wanted):
        raise WeightsError(f"{path}: does not fit the backbone.\n" + "\n".join(problems))
    backbone.load_state_dict(fitting)
    return left_over


def misfits(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Return how a state differs from the one that is wanted, a line for each entry, at most 50; empty if it fits.

    Names and shapes must be the same, numbers of a fraction may not stand for whole ones or the other way round, and
    every value must be finite.
    """
    problems = [f"left over: {name[:200]}" for name in found if name not in wanted]
    for name, tensor in wanted.items():
        if name not in found:
            problems.append(f"missing: {name}")
        elif found[name].shape != tensor.shape:
            problems.append(f"shape {tuple(found[name].shape)} instead of {tuple(tensor.shape)}: {name}")
        elif found[name].is_floating_point() != tensor.is_floating_point():
            problems.append(f"type {found[name].dtype} instead of {tensor.dtype}: {name}")
        elif not found[name].isfinite().all():
            problems.append(f"not finite: {name}")
    more = len(problems) - _SHOWN_MISFITS
    return [*problems[:_SHOWN_MISFITS], *([f"and {more:,} more"] if more > 0 else [])]


def state_bytes(state: Mapping[str, torch.Tensor]) -> int:
    """Return how many bytes the values of a state take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _fit(tensor: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    both_convolve = tensor.dim() == wanted.dim() == 4
    colour_to_grey = both_convolve and tensor.shape[1] == 3 and wanted.shape[1] == 1
    return tensor.sum(dim=1, keepdim=True) if colour_to_grey else tensor


def _without_batch_norm(tensors: dict[str, torch.Tensor], backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Put a GroupNorm layer's own entries in the place of those of a BatchNorm that the file has there."""
    replaced = [
        (name, layer)
        for name, layer in backbone.named_modules()
        if isinstance(layer, nn.GroupNorm) and f"{name}.running_mean" in tensors
    ]
    gone = {f"{name}.{entry}" for name, _ in replaced for entry in _BATCH_NORM}
    own = {f"{name}.{entry}": tensor for name, layer in replaced for entry, tensor in layer.state_dict().items()}
    return {name: tensor for name, tensor in tensors.items() if name not in gone} | own


def _our_name(name: str, wanted: dict[str, torch.Tensor]) -> str:
    """Translate a tensor's name; ResNets need no translation, and a name without one is returned as it is."""
    if "_conv_stem.weight" in wanted:
        return _efficientnet_name(name, wanted)
    return re.sub(r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3.", name)


def _efficientnet_name(name: str, wanted: dict[str, torch.Tensor]) -> str:
    module, _, tensor = name.rpartition(".")
    if module in _EFFICIENTNET_ENDS:
        return f"{_EFFICIENTNET_ENDS[module]}.{tensor}"
    match = re.fullmatch(r"(features|blocks)\.(\d{1,3})\.(\d{1,3})\.(.+)", module)
    if not match:
        return name
    source, stage, index, part = match.groups()
    stage_number = int(stage) - (source == "features")
    # MONAI counts blocks through all stages; the others begin anew in each.
    blocks = sorted({int(key.split(".")[2]) for key in wanted if key.startswith(f"_blocks.{stage_number}.")})
    if int(index) >= len(blocks):
        return name
    ours = f"_blocks.{stage_number}.{blocks[int(index)]}"
    parts = _EXPANDING if f"{ours}._expand_conv.weight" in wanted else _PLAIN
    return f"{ours}.{parts.get(part, part)}.{tensor}"
