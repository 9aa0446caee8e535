"""What leaves a site. The authors' released code shared nothing; these tests find that."""

import pytest
import torch

from polyhead.config import Model
from polyhead.errors import StudyError
from polyhead.federation import sharing as sharing_module
from polyhead.federation.sharing import NOTHING, Sharing, shared_names
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, batch_norm_names, build_head

FFL = Sharing(backbone=True, batch_norm=True, head=False)


def model_of(backbone: str = "resnet50") -> SiteModel:
    network = build_backbone(Model(backbone=backbone), seed=0)
    return SiteModel(network, build_head(feature_count(network), ["Edema"], 0), ["Edema"])


@pytest.fixture(scope="module")
def resnet50() -> SiteModel:
    return model_of()


def test_ffl_shares_every_entry_of_a_resnet50_but_the_two_of_the_head(resnet50: SiteModel) -> None:
    names = shared_names(resnet50, FFL)
    assert len(names) == 318
    assert set(resnet50.state_dict()) - names == {"head.weight", "head.bias"}


def test_private_batch_norm_keeps_its_statistics_too(resnet50: SiteModel) -> None:
    names = shared_names(resnet50, Sharing(backbone=True, batch_norm=False, head=False))
    kept = set(resnet50.state_dict()) - names - {"head.weight", "head.bias"}
    assert kept == {f"backbone.{name}" for name in batch_norm_names(resnet50.backbone)}
    assert any(name.endswith("running_var") for name in kept)


def test_conventional_shares_everything(resnet50: SiteModel) -> None:
    assert shared_names(resnet50, Sharing(True, True, True)) == set(resnet50.state_dict())


def test_nothing_is_nothing(resnet50: SiteModel) -> None:
    assert shared_names(resnet50, NOTHING) == frozenset()


def test_the_name_filter_of_the_released_code_shares_nothing(resnet50: SiteModel) -> None:
    """``'fc.' or 'head.' in name`` is true for every name, so its negation selects none."""
    assert not [name for name in resnet50.state_dict() if not ("fc." or "head." in name)]  # noqa: SIM222


def test_nothing_to_share_is_an_error_not_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SiteModel(torch.nn.BatchNorm2d(1), build_head(1, ["Edema"], 0), ["Edema"])
    monkeypatch.setattr(sharing_module, "batch_norm_names", lambda backbone: frozenset(backbone.state_dict()))
    with pytest.raises(StudyError, match="nothing would leave a site"):
        shared_names(model, Sharing(backbone=True, batch_norm=False, head=False))


def test_everything_shared_under_ffl_is_an_error_not_a_result() -> None:
    model = SiteModel(torch.nn.Conv2d(1, 1, 1), torch.nn.Linear(1, 1), ["Edema"])
    model.head = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(StudyError, match="everything would leave a site"):
        shared_names(model, FFL)
