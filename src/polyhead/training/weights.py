"""Initial weights of a backbone from a safetensors file: ours, or an ImageNet model's.

Names as torchvision and timm give them are understood for the networks of `polyhead.training.backbone`. ResNets and
DenseNets then compute the same function as theirs. MONAI's EfficientNets add 1e-3 to a variance where both others
add 1e-5, so there the weights are a start, not the same function.
"""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from polyhead.errors import WeightsError

__all__ = ["load_weights"]

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
    same image had in three equal channels. Counters of BatchNorm may be absent; they start at 0 then.

    Returns
    -------
    list of str
        Tensors of the file that were left over: the classifier of an ImageNet model.

    Raises
    ------
    WeightsError
        If the file is not safetensors, or any other tensor is left over, missing or of another shape; all are named.
    """
    if path.exists() and not path.is_file():
        raise WeightsError(f"{path}: is not a file.")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as problem:
        raise WeightsError(f"{path}: cannot be read as safetensors ({problem}).") from problem
    wanted = backbone.state_dict()
    if set(tensors) != set(wanted):
        tensors = {_our_name(name, wanted): tensor for name, tensor in tensors.items()}
    left_over = [name for name in tensors if name not in wanted]
    fitting = {name: _fit(tensor, wanted[name]) for name, tensor in tensors.items() if name in wanted}
    problems = [f"left over: {name}" for name in left_over if not _CLASSIFIER.fullmatch(name)]
    for name, tensor in wanted.items():
        if name in fitting:
            if fitting[name].shape != tensor.shape:
                problems.append(f"shape {tuple(fitting[name].shape)} instead of {tuple(tensor.shape)}: {name}")
            elif fitting[name].is_floating_point() != tensor.is_floating_point():
                problems.append(f"type {fitting[name].dtype} instead of {tensor.dtype}: {name}")
            elif not fitting[name].isfinite().all():
                problems.append(f"not finite: {name}")
        elif not name.endswith("num_batches_tracked"):
            problems.append(f"missing: {name}")
    if problems:
        raise WeightsError(f"{path}: does not fit the backbone.\n" + "\n".join(problems))
    backbone.load_state_dict(wanted | fitting)
    return left_over


def _fit(tensor: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    both_convolve = tensor.dim() == wanted.dim() == 4
    colour_to_grey = both_convolve and tensor.shape[1] == 3 and wanted.shape[1] == 1
    return tensor.sum(dim=1, keepdim=True) if colour_to_grey else tensor


def _our_name(name: str, wanted: dict[str, torch.Tensor]) -> str:
    """Translate a tensor's name; ResNets need no translation, and a name without one is returned as it is."""
    if "_conv_stem.weight" in wanted:
        return _efficientnet_name(name, wanted)
    return re.sub(r"(denselayer\d+)\.(norm|conv)\.?([12])\.", r"\1.layers.\2\3.", name)


def _efficientnet_name(name: str, wanted: dict[str, torch.Tensor]) -> str:
    module, _, tensor = name.rpartition(".")
    if module in _EFFICIENTNET_ENDS:
        return f"{_EFFICIENTNET_ENDS[module]}.{tensor}"
    match = re.fullmatch(r"(features|blocks)\.(\d+)\.(\d+)\.(.+)", module)
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
