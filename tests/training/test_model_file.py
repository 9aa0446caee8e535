"""A model on disk."""

import json
from pathlib import Path

import numpy as np
import pytest

from polyhead.errors import WeightsError
from polyhead.imaging.recipe import STANDARD
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, build_head
from polyhead.training.model_file import load_model, save_model
from polyhead.training.predict import predict_split, predictions_table
from tests.conftest import TINY, make_split

FINDINGS = ("Edema", "Mass")
DATA = make_split(6, 2, seed=0)


@pytest.fixture
def model() -> SiteModel:
    backbone = build_backbone(TINY, seed=0)
    return SiteModel(backbone, build_head(feature_count(backbone), FINDINGS, 0), FINDINGS)


def test_a_model_predicts_the_same_after_saving(model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {"site": "a"}, tmp_path)
    assert np.array_equal(predict_split(load_model(tmp_path), DATA), predict_split(model, DATA))
    assert json.loads((tmp_path / "model.json").read_text())["findings"] == list(FINDINGS)


def test_findings_in_another_order_are_matched_by_name(model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    turned = load_model(tmp_path, ["Mass", "Edema"])
    assert np.allclose(predict_split(turned, DATA), predict_split(model, DATA)[:, ::-1], atol=1e-6)


def test_another_set_of_findings_is_refused(model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    with pytest.raises(WeightsError, match="was trained for Edema, Mass, not for Edema"):
        load_model(tmp_path, ["Edema"])


def test_an_incomplete_model_is_refused(model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"half a fi")
    with pytest.raises(WeightsError, match="no complete model"):
        load_model(tmp_path)


def test_predictions_keep_blank_labels_blank(model: SiteModel) -> None:
    DATA.labels[0, 1] = np.nan
    table = predictions_table(DATA, FINDINGS, predict_split(model, DATA))
    assert table.height == 12
    assert table.filter(finding="Mass")["label"].null_count() == 1
    assert table.filter(finding="Edema")["label"].null_count() == 0
    assert table["image"][:6].to_list() == list(DATA.images)
