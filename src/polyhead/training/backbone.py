"""Backbones: networks that turn one-channel square images into one vector of features an image."""

import re
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from polyhead.config import Model
from polyhead.errors import StudyError
from polyhead.findings import closest

__all__ = ["BACKBONES", "build_backbone", "feature_count"]

_RESNETS = tuple(f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152, 200))
_DENSENETS = tuple(f"densenet{depth}" for depth in (121, 169, 201, 264))
_EFFICIENTNETS = tuple(f"efficientnet-b{size}" for size in range(8))

_PLAIN_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_GROUPS = (32, 16, 8, 4, 2, 1)
# With fewer channels in a group little is left of a map of one pixel, such as a small network's last.
_FEWEST = 4

BACKBONES = (*_RESNETS, *_DENSENETS, *_EFFICIENTNETS)
"""Names that `build_backbone` knows, besides ``timm:NAME``."""


def build_backbone(model: Model, seed: int) -> nn.Module:
    """Build the shared part of a site's model, with random weights.

    Parameters
    ----------
    model
        ``backbone``, ``width`` and ``norm`` are read.
    seed
        Decides the weights; PyTorch's global random state is left as it was.

    Returns
    -------
    torch.nn.Module
        Maps ``(n, 1, h, w)`` to ``(n, features)``, globally pooled.

    Raises
    ------
    StudyError
        If the backbone is unknown, a width is asked of a network that has none, or GroupNorm of one whose BatchNorm
        layers do more than that.
    """
    build = _builder(model)
    if model.width != 1.0 and model.backbone not in _RESNETS:
        raise StudyError(f"key 'model.width': {model.width}, but only ResNets have a width; {model.backbone} has not.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    if model.norm == "group":
        _replace_batch_norm(network, model.backbone)
    return network


def feature_count(backbone: nn.Module) -> int:
    """Return how many features a backbone gives an image."""
    training = backbone.training
    parameter = next(backbone.parameters())
    with torch.no_grad():
        features = backbone.eval()(torch.zeros(1, 1, 64, 64, device=parameter.device))
    backbone.train(training)
    return int(features.shape[1])


def _replace_batch_norm(network: nn.Module, name: str) -> None:
    """Put GroupNorm, with scale 1 and shift 0, in the place of each BatchNorm layer, found by its type."""
    for parent in list(network.modules()):
        for place, layer in parent.named_children():
            if not isinstance(layer, _BatchNorm):
                continue
            if type(layer) not in _PLAIN_BATCH_NORMS:
                raise StudyError(
                    f"key 'model.norm': 'group' takes the place of plain BatchNorm layers, and {name} has layers of "
                    f"another kind ({type(layer).__name__}). Choose another backbone, such as resnet18."
                )
            channels = layer.num_features
            groups = next(n for n in _GROUPS if n == 1 or (channels % n == 0 and channels // n >= _FEWEST))
            setattr(parent, place, nn.GroupNorm(groups, channels, eps=layer.eps, device=layer.weight.device))


def _builder(model: Model) -> Callable[[], nn.Module]:
    name = model.backbone
    if name in _RESNETS:
        return lambda: _resnet(name, model.width)
    if name in _DENSENETS:
        return lambda: _densenet(name)
    if name in _EFFICIENTNETS:
        return lambda: _efficientnet(name)
    if match := re.fullmatch(r"timm:([\w.]+)", name):
        return lambda: _timm(match.group(1))
    raise StudyError(f"key 'model.backbone': {name!r} is unknown; {closest(name, BACKBONES)}; or timm:NAME.")


def _resnet(name: str, width: float) -> nn.Module:
    # Here and below: importing MONAI takes seconds, which those who build no such network should not wait for.
    from monai.networks.nets import resnet

    # Stride 2 and no bias in the shortcuts: as for ImageNet, which MONAI's defaults are not.
    network: nn.Module = getattr(resnet, name)(
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_stride=2,
        bias_downsample=False,
        widen_factor=width,
        feed_forward=False,
    )
    return network


def _densenet(name: str) -> nn.Module:
    from monai.networks.nets import densenet

    build = getattr(densenet, name.replace("densenet", "DenseNet"))
    network: nn.Module = build(spatial_dims=2, in_channels=1, out_channels=1)
    network.get_submodule("class_layers").out = nn.Identity()
    return network


def _efficientnet(name: str) -> nn.Module:
    from monai.networks.nets import efficientnet

    network = efficientnet.EfficientNetBN(name, pretrained=False, spatial_dims=2, in_channels=1, num_classes=1)
    network.register_module("_fc", nn.Identity())
    return network


def _timm(name: str) -> nn.Module:
    try:
        import timm  # An extra: it brings torchvision along.
    except ImportError as problem:
        raise StudyError(
            f"key 'model.backbone': timm:{name} needs the extra: pip install '.[timm]' in Polyhead's folder "
            f"({problem})."
        ) from problem
    if name not in timm.list_models():
        raise StudyError(f"key 'model.backbone': timm has no {name!r}; {closest(name, timm.list_models())}.")
    network: nn.Module = timm.create_model(name, pretrained=False, in_chans=1, num_classes=0)
    return network
