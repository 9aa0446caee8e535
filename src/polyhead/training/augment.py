"""Random changes of a batch of training images, as one tensor operation."""

import math

import torch
from torch.nn.functional import affine_grid, grid_sample

from polyhead.config import Augmentation

__all__ = ["augment"]


def augment(images: torch.Tensor, settings: Augmentation, generator: torch.Generator) -> torch.Tensor:
    """Rotate, shift, scale, change contrast, add noise, flip: each image by its own draw.

    Parameters
    ----------
    images
        Shape ``(n, 1, h, w)``, square, any intensity range; outside of an image its edge is repeated.
    settings
        The largest change of each kind; 0 leaves that kind out.
    generator
        A CPU generator. The same numbers are drawn whatever the device of `images` and whatever is left out.

    Returns
    -------
    torch.Tensor
        Same shape, type and device.
    """
    n = len(images)
    draws = torch.rand(n, 6, generator=generator) * 2 - 1
    noise_seed = int(torch.randint(2**62, (), generator=generator))
    turned = _move(images, draws[:, :4], draws[:, 5], settings)
    mean = turned.mean(dim=(1, 2, 3), keepdim=True)
    factor = 1 + settings.contrast * draws[:, 4].to(images).view(n, 1, 1, 1)
    changed = mean + (turned - mean) * factor
    if settings.noise:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(noise_seed))
        changed = changed + settings.noise * noise.to(images)
    return changed


def _move(images: torch.Tensor, draws: torch.Tensor, flip: torch.Tensor, settings: Augmentation) -> torch.Tensor:
    """Apply rotation, scale, shift and flip in one resampling; `draws` are four numbers in [-1, 1) an image."""
    if not (settings.rotation or settings.shift or settings.scale or settings.flip):
        return images
    angle = draws[:, 0] * math.radians(settings.rotation)
    size = 1 + settings.scale * draws[:, 1]
    mirror = torch.where((flip + 1) / 2 < settings.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    # The grid runs from -1 to 1 over the side, so a share of the side is twice as much in its units.
    row_x = torch.stack([cos * mirror, -sin, 2 * settings.shift * draws[:, 2]], dim=1)
    row_y = torch.stack([sin * mirror, cos, 2 * settings.shift * draws[:, 3]], dim=1)
    grid = affine_grid(torch.stack([row_x, row_y], dim=1).to(images), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
