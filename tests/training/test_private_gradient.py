"""Laws of private gradients: what one patient can move, what noise is added, and of what it is drawn."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from polyhead.config import Augmentation, Model, Training
from polyhead.errors import StudyError
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.dataset import SplitData, image_batch
from polyhead.training.local import Stretch, train_locally
from polyhead.training.loss import masked_bce
from polyhead.training.model import SiteModel, build_head, model_state
from polyhead.training.private_gradient import Mechanism, draw_patients, private_gradients, sampling_rate
from tests.conftest import PLAIN, make_split

GROUPS = Model(backbone="resnet10", width=0.0625, image_size=32, norm="group")
KEY = bytes(range(32))
FINDINGS = ["Edema", "Mass"]


def model_for(network: Model = GROUPS) -> SiteModel:
    backbone = build_backbone(network, seed=0)
    return SiteModel(backbone, build_head(feature_count(backbone), FINDINGS, 0), FINDINGS).train()


def gradient(
    data: SplitData, batch: int, mechanism: Mechanism, step: int = 0, augmentation: Augmentation | None = None
) -> torch.Tensor:
    """Return the sum before it is divided, all of the model as one vector."""
    model = model_for()
    training = Training(batch_size=batch, device="cpu", augment=augmentation or Augmentation())
    assert list(private_gradients(model, data, training, range(step, step + 1), mechanism)) == [step]
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) * batch


def without(data: SplitData, patient: str) -> SplitData:
    kept = [place for place, one in enumerate(data.patients) if one != patient]
    return chosen(data, kept)


def chosen(data: SplitData, kept: Sequence[int]) -> SplitData:
    names, patients = (tuple(values[place] for place in kept) for values in (data.images, data.patients))
    rows = np.array([data.rows[place] for place in kept], dtype=np.int64)
    return SplitData(data.pixels, rows, data.labels[list(kept)], names, patients)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(
    images=st.integers(3, 9),
    patients=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    clip=st.sampled_from([0.01, 1.0]),
    key=st.binary(min_size=32, max_size=32),
    who=st.integers(0, 8),
)
def test_one_patient_moves_the_sum_by_at_most_the_bound(
    images: int, patients: list[int], clip: float, key: bytes, who: int
) -> None:
    data = replace(make_split(images, 2, seed=images), patients=tuple(f"p{one}" for one in patients[:images]))
    gone = data.patients[who % images]
    # A batch larger than the number of patients: everybody is drawn, with and without this one.
    with_, without_ = (gradient(one, 16, Mechanism(0.0, clip, key)) for one in (data, without(data, gone)))
    assert 0 < torch.linalg.vector_norm((with_ - without_).double()).item() <= clip * (1 + 1e-5)


def test_of_a_model_whose_head_is_fixed_bound_and_noise_are_the_backbones() -> None:
    data = replace(make_split(4, 2, seed=0), patients=("p",) * 4)

    def of_backbone(mechanism: Mechanism) -> torch.Tensor:
        model = model_for()
        model.head.requires_grad_(False)
        list(private_gradients(model, data, Training(batch_size=16, device="cpu"), range(1), mechanism))
        assert model.head.weight.grad is None
        return torch.cat([p.grad.flatten() for p in model.backbone.parameters() if p.grad is not None]) * 16

    # One patient, whose gradient is longer than the bound: the backbone's part alone is as long as that.
    quiet = of_backbone(Mechanism(0.0, 1e-3, KEY))
    assert torch.linalg.vector_norm(quiet.double()).item() == pytest.approx(1e-3, rel=1e-4)
    noise = of_backbone(Mechanism(2.0, 1e-3, KEY)) - quiet
    assert noise.std().item() == pytest.approx(2e-3, rel=0.05)


def test_others_draw_the_same_whoever_else_is_there() -> None:
    patients = [f"p{one}" for one in range(200)]
    with_ = draw_patients(patients, 40, KEY, 3)
    # The rate is of the number of patients, which is public: it is held, so that only the draws differ.
    without_ = draw_patients(patients[1:], 199 * 40 / 200, KEY, 3)  # type: ignore[arg-type]
    assert [patients[i] for i in with_.images if i] == [patients[1:][i] for i in without_.images]


def test_a_patient_with_a_hundred_images_counts_as_one() -> None:
    data = replace(make_split(100, 2, seed=1), patients=("p",) * 100)
    assert len(draw_patients(data.patients, 16, KEY, 0).images) == 1
    assert torch.linalg.vector_norm(gradient(data, 16, Mechanism(0.0, 0.5, KEY))).item() <= 0.5 * (1 + 1e-5)
    shown = {int(draw_patients(data.patients, 16, KEY, step).images[0]) for step in range(200)}
    assert len(shown) > 60, "each of the images has its turn"


def test_patients_are_drawn_at_their_rate_each_for_herself() -> None:
    patients = [f"p{one % 500}" for one in range(1000)]
    drawn = np.zeros((300, 500))
    for step in range(300):
        images = draw_patients(patients, 50, KEY, step).images
        drawn[step, images % 500] = 1
        assert len(set(images % 500)) == len(images)
    rate = sampling_rate(500, 50)
    assert rate == 0.1
    assert drawn.mean() == pytest.approx(rate, abs=4 * (rate * 0.9 / drawn.size) ** 0.5)
    # The number drawn varies as that of independent draws does, which a fixed batch would not.
    assert drawn.sum(axis=1).var() == pytest.approx(500 * rate * 0.9, rel=0.35)
    assert drawn.mean(axis=0).std() == pytest.approx((rate * 0.9 / 300) ** 0.5, rel=0.2)


def test_without_bound_and_noise_it_is_the_sum_of_the_gradients_by_hand() -> None:
    data = chosen(make_split(12, 2, seed=3), range(0, 12, 2))
    data.labels[0, 1] = np.nan
    found = gradient(data, 8, Mechanism(0.0, 1e6, KEY), augmentation=PLAIN)
    model = model_for()
    pixels = image_batch(data.pixels[data.rows], torch.device("cpu"))
    for place in range(len(data)):
        labels = torch.from_numpy(data.labels[place : place + 1])
        torch.autograd.backward(masked_bce(model(pixels[place : place + 1]), labels, torch.ones(2)))
    by_hand = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert torch.allclose(found, by_hand, rtol=1e-4, atol=1e-5)
    # Head and backbone are bounded together.
    assert torch.linalg.vector_norm(gradient(data, 8, Mechanism(0.0, 1e-3, KEY))).item() <= 6e-3 * (1 + 1e-5)


def test_noise_has_the_spread_that_is_asked_for_in_every_part() -> None:
    data = make_split(4, 2, seed=1)
    empty = replace(data, rows=data.rows[:0], labels=data.labels[:0], images=(), patients=())
    noise = gradient(empty, 16, Mechanism(2.0, 0.25, KEY)).double().numpy()
    n = len(noise)
    assert n > 10_000
    assert abs(noise.mean()) < 4 * 0.5 / n**0.5
    assert noise.std() == pytest.approx(0.5, rel=4 / (2 * n) ** 0.5)
    assert np.abs(noise).max() > 4 * 0.5 - 0.5
    half = noise[: n // 2 * 2].reshape(-1, 2)
    assert abs(np.corrcoef(half.T)[0, 1]) < 4 / len(half) ** 0.5


def test_noise_is_the_same_for_the_same_key_and_step_and_no_other() -> None:
    data = make_split(4, 2, seed=1)
    one = gradient(data, 4, Mechanism(1.0, 1.0, KEY))
    assert torch.equal(one, gradient(data, 4, Mechanism(1.0, 1.0, KEY)))
    others = [gradient(data, 4, Mechanism(1.0, 1.0, KEY), step=1)]
    # Every byte of the key matters; a generator of 32 bits would not see most of them.
    for byte in (0, 15, 31):
        key = bytes(value ^ (place == byte) for place, value in enumerate(KEY))
        others.append(gradient(data, 4, Mechanism(1.0, 1.0, key)))
    for other in others:
        assert abs(np.corrcoef(one.numpy(), other.numpy())[0, 1]) < 0.1


def test_an_empty_draw_is_noise_and_a_step_like_any_other() -> None:
    data = make_split(40, 2, seed=1)
    steps = [step for step in range(200) if not len(draw_patients(data.patients, 2, KEY, step).images)]
    assert steps, "choose another key"
    assert not gradient(data, 2, Mechanism(0.0, 1.0, KEY), steps[0]).any()
    assert gradient(data, 2, Mechanism(1.0, 1.0, KEY), steps[0]).all()


def test_a_gradient_that_is_not_finite_counts_as_nothing() -> None:
    data = make_split(2, 2, seed=1)
    model = model_for()
    model.head.weight.data[0, 0] = torch.inf
    training = Training(batch_size=8, device="cpu")
    list(private_gradients(model, data, training, range(1), Mechanism(0.0, 1.0, KEY)))
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("network", ["resnet18", "densenet121", "efficientnet-b0"])
def test_with_group_norm_no_image_changes_what_comes_of_another(network: str) -> None:
    backbone = build_backbone(Model(backbone=network, norm="group", image_size=32), seed=0)
    assert not any(isinstance(layer, nn.modules.batchnorm._NormBase) for layer in backbone.modules())
    images = torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for layer in backbone.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    with torch.no_grad():
        for mode in [False] if network == "efficientnet-b0" else [True, False]:
            backbone.train(mode)
            together = backbone(images)
            alone = torch.cat([backbone(images[place : place + 1]) for place in range(3)])
            assert torch.allclose(together, alone, atol=1e-4)


def test_a_layer_that_keeps_statistics_is_refused() -> None:
    model = model_for(Model(backbone="resnet10", width=0.0625))
    with pytest.raises(StudyError, match=r"bn1.*norm = 'group'"):
        list(private_gradients(model, make_split(4, 2, 0), Training(), range(1), Mechanism(1.0, 1.0, KEY)))


def test_it_is_trained_in_the_one_loop_and_tells_no_loss() -> None:
    data, training = make_split(20, 2, seed=0), Training(batch_size=8, device="cpu")
    mechanism = Mechanism(1.0, 1.0, KEY)
    whole, parts = model_for(), model_for()
    loss, state = train_locally(whole, data, training, Stretch(0, 4, 4, (0, "a")), {}, mechanism=mechanism)
    assert np.isnan(loss)
    _, between = train_locally(parts, data, training, Stretch(0, 1, 4, (0, "a")), {}, mechanism=mechanism)
    _, end = train_locally(parts, data, training, Stretch(1, 3, 4, (0, "a")), between, mechanism=mechanism)
    for one, other in ((model_state(whole), model_state(parts)), (state, end)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_noise_and_bound_it_learns() -> None:
    data = make_split(24, 2, seed=0)
    training = Training(batch_size=16, learning_rate=0.01, device="cpu", augment=PLAIN)
    model = model_for()
    before = _loss(model, data)
    train_locally(model, data, training, Stretch(0, 15, 15, (0, "a")), {}, mechanism=Mechanism(0.0, 10.0, KEY))
    assert _loss(model, data) < 0.9 * before


def _loss(model: Callable[[torch.Tensor], torch.Tensor], data: SplitData) -> float:
    with torch.no_grad():
        images = image_batch(data.pixels[data.rows], torch.device("cpu"))
        return masked_bce(model(images), torch.from_numpy(data.labels), torch.ones(2)).item()
