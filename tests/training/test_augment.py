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


def test_a_quarter_turn_stays_within_its_limit() -> None:
    # The picture rises by 4 to the right and 2 downwards; after a turn of at most 5 degrees it still rises right.
    changed = augmented(picture(), rotation=5.0)
    assert ((changed[..., 31] - changed[..., 0]).mean(dim=(1, 2)) > 3).all()
