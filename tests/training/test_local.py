"""The training loop."""

import pytest
import torch

from polyhead.config import Training
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.local import Stretch, train_locally
from polyhead.training.model import SiteModel, build_head, model_state
from polyhead.training.optimizer import learning_rate
from tests.conftest import TINY, make_split

DATA = make_split(20, 2, seed=0)
TRAINING = Training(batch_size=8, learning_rate=0.01, device="cpu")


def fresh_model() -> SiteModel:
    backbone = build_backbone(TINY, seed=0)
    return SiteModel(backbone, build_head(feature_count(backbone), ["Edema", "Mass"], 0), ["Edema", "Mass"])


def test_two_stretches_are_one() -> None:
    whole, parts = fresh_model(), fresh_model()
    _, state_of_whole = train_locally(whole, DATA, TRAINING, Stretch(0, 6, 6, (0, "a")), {})
    _, state = train_locally(parts, DATA, TRAINING, Stretch(0, 2, 6, (0, "a")), {})
    _, state = train_locally(parts, DATA, TRAINING, Stretch(2, 4, 6, (0, "a")), state)
    assert_equal(model_state(whole), model_state(parts))
    assert_equal(state_of_whole, state)


def test_training_lowers_the_loss() -> None:
    model = fresh_model()
    first, state = train_locally(model, DATA, TRAINING, Stretch(0, 10, 40, (0, "a")), {})
    last, _ = train_locally(model, DATA, TRAINING, Stretch(10, 30, 40, (0, "a")), state)
    assert last < first


def test_training_the_head_leaves_the_backbone_bit_for_bit() -> None:
    model = fresh_model()
    before = model_state(model)
    train_locally(model, DATA, TRAINING, Stretch(0, 3, 3, (0, "a"), part="head"), {})
    after = model_state(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    train_locally(model, DATA, TRAINING, Stretch(0, 3, 3, (0, "a")), {})
    assert not torch.equal(model_state(model)["backbone.conv1.weight"], before["backbone.conv1.weight"])


def test_global_random_state_neither_matters_nor_changes() -> None:
    torch.manual_seed(1)
    one = fresh_model()
    before = torch.random.get_rng_state()
    train_locally(one, DATA, TRAINING, Stretch(0, 2, 2, (0, "a")), {})
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    two = fresh_model()
    train_locally(two, DATA, TRAINING, Stretch(0, 2, 2, (0, "a")), {})
    assert_equal(model_state(one), model_state(two))


def test_the_learning_rate_falls_from_highest_to_nothing() -> None:
    rates = [learning_rate(step, 10, 0.5) for step in range(11)]
    assert rates[0] == 0.5
    assert rates[5] == pytest.approx(0.25)
    assert rates[10] == pytest.approx(0)
    assert rates == sorted(rates, reverse=True)


def test_a_constant_rate_does_not_fall_and_is_what_training_takes() -> None:
    assert [learning_rate(step, 10, 0.5, "constant") for step in (0, 5, 9, 10)] == [0.5] * 4
    # The number of steps still to come decides nothing, as it does under a cosine.
    for schedule, same in (("constant", True), ("cosine", False)):
        training = TRAINING.model_copy(update={"schedule": schedule})
        ends = []
        for total in (3, 300):
            model = fresh_model()
            train_locally(model, DATA, training, Stretch(0, 3, total, (0, "a")), {})
            ends.append(model_state(model)["head.weight"])
        assert torch.equal(*ends) == same


def test_training_the_backbone_leaves_the_head_bit_for_bit() -> None:
    model = fresh_model()
    before = model_state(model)
    _, state = train_locally(model, DATA, TRAINING, Stretch(0, 3, 3, (0, "a"), part="backbone"), {})
    after = model_state(model)
    assert {name for name in before if torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert {name.rpartition(".")[0] for name in state} == {name for name, _ in model.backbone.named_parameters()}
    # And afterwards all of it can be trained again.
    train_locally(model, DATA, TRAINING, Stretch(0, 1, 1, (0, "a")), {})
    assert not torch.equal(model_state(model)["head.weight"], before["head.weight"])


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
