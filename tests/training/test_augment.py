"""Augmentation: what each setting moves."""

import torch

from polyhead.config import Augmentation
from polyhead.training.augment import augment

OFF = {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "contrast": 0.0, "noise": 0.0, "flip": 0.0}


def augmented(images: torch.Tensor, seed: int = 0, **settings: float) -> torch.Tensor:
    return augment(images, Augmentation(**(OFF | settings)), torch.Generator().manual_seed(seed))


def picture() -> torch.Tensor:
    """A smooth picture, brighter to the right and at the bottom."""
    row = torch.linspace(-2, 2, 32)
    return (row.view(1, 1, 1, 32) + 0.5 * row.view(1, 1, 32, 1)).repeat(4, 1, 1, 1)


def test_nothing_set_changes_nothing() -> None:
    assert torch.equal(augmented(picture()), picture())


def test_the_generator_decides_everything() -> None:
    settings = {"rotation": 10.0, "shift": 0.1, "scale": 0.1, "contrast": 0.2, "noise": 0.1}
    assert torch.equal(augmented(picture(), 1, **settings), augmented(picture(), 1, **settings))
    assert not torch.equal(augmented(picture(), 1, **settings), augmented(picture(), 2, **settings))


def test_each_image_has_its_own_draw() -> None:
    changed = augmented(picture(), rotation=20.0)
    assert not torch.equal(changed[0], changed[1])


def test_a_certain_flip_mirrors() -> None:
    torch.testing.assert_close(augmented(picture(), flip=1.0), picture().flip(3), rtol=0, atol=1e-4)


def test_flips_are_off_by_default() -> None:
    assert Augmentation().flip == 0


def test_contrast_keeps_the_mean_and_scales_the_spread() -> None:
    changed = augmented(picture(), contrast=0.5)
    torch.testing.assert_close(changed.mean(dim=(1, 2, 3)), picture().mean(dim=(1, 2, 3)), rtol=0, atol=1e-5)
    ratio = changed.std(dim=(1, 2, 3)) / picture().std(dim=(1, 2, 3))
    assert ((ratio - 1).abs() <= 0.5).all()
    assert ratio.std() > 0


def test_noise_has_the_size_that_was_asked_for() -> None:
    difference = augmented(torch.zeros(8, 1, 64, 64), noise=0.3)
    assert 0.28 < difference.std() < 0.32


def square(n: int = 200) -> torch.Tensor:
    """A bright square of 16 pixels on black, in the middle of 64; centre of mass and area tell what was done to it."""
    images = torch.zeros(n, 1, 64, 64)
    images[..., 24:40, 24:40] = 1
    return images


def centres(images: torch.Tensor) -> torch.Tensor:
    """Each image's centre of mass, in pixels from the middle: shape (n, 2), x and y."""
    place = torch.arange(64) - 31.5
    mass = images.sum(dim=(1, 2, 3))
    return (
        torch.stack([(images.sum(dim=2)[:, 0] * place).sum(1), (images.sum(dim=3)[:, 0] * place).sum(1)], 1)
        / mass[:, None]
    )


def test_a_shift_moves_in_all_directions_up_to_its_limit() -> None:
    moved = centres(augmented(square(), shift=0.1))
    assert moved.abs().max() <= 6.4 + 0.01
    assert (moved.amax(dim=0) > 5).all()
    assert (moved.amin(dim=0) < -5).all()


def test_a_scale_changes_the_area_up_to_its_limit_and_nothing_else() -> None:
    scaled = augmented(square(), scale=0.2)
    side = (scaled.sum(dim=(1, 2, 3)) / 256).sqrt()
    assert 0.78 < side.min() < 0.85
    assert 1.15 < side.max() < 1.22
    assert centres(scaled).abs().max() < 0.1


def test_a_rotation_turns_both_ways_up_to_its_limit() -> None:
    images = torch.zeros(200, 1, 64, 64)
    images[..., 24:40, 50:58] = 1  # Right of the middle by 22 pixels: a turn moves it up or down.
    x, y = centres(augmented(images, rotation=10.0)).unbind(1)
    degrees = torch.rad2deg(torch.atan2(y, x))
    assert degrees.abs().max() <= 10.1
    assert degrees.max() > 8
    assert degrees.min() < -8
