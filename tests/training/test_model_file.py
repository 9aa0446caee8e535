"""A model on disk."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from polyhead.config import Model
from polyhead.errors import WeightsError
from polyhead.imaging.recipe import STANDARD
from polyhead.training import model_file
from polyhead.training.backbone import BACKBONES, build_backbone, feature_count
from polyhead.training.model import SiteModel, build_head
from polyhead.training.model_file import load_model, save_model
from polyhead.training.predict import predict_split, predictions_table
from polyhead.training.tensor_file import read_tensors, write_tensors
from tests.conftest import TINY, make_split

FINDINGS = ("Edema", "Mass")
DATA = make_split(6, 2, seed=0)


@pytest.fixture
def model() -> SiteModel:
    backbone = build_backbone(TINY, seed=0)
    model = SiteModel(backbone, build_head(feature_count(backbone), FINDINGS, 0), FINDINGS)
    return model.to(memory_format=torch.channels_last)  # as in training


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
    with pytest.raises(WeightsError, match=r"head\.safetensors: 9 bytes instead of the \d+ that were written"):
        load_model(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"head\.safetensors: cannot be read \(No such file"):
        load_model(tmp_path)


def test_a_description_cut_off_at_any_byte_is_refused(model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    raw = (tmp_path / "model.json").read_bytes()
    for length in range(len(raw) - 2):
        (tmp_path / "model.json").write_bytes(raw[:length])
        with pytest.raises(WeightsError, match=r"model\.json: is not JSON, or cut off .*Copy the model's folder"):
            load_model(tmp_path)


@pytest.mark.slow
def test_a_bit_of_the_description_flipped_is_refused_or_loads_a_model_of_the_same_shapes(
    model: SiteModel, tmp_path: Path
) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    raw = (tmp_path / "model.json").read_bytes()
    # Building a network takes its time; where the choice of one ends, nothing decides any more.
    refused = 0
    for bit in range(0, 8 * raw.index(b"preprocessing"), 3):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "model.json").write_bytes(flipped)
        try:
            load_model(tmp_path)
        except WeightsError as problem:
            refused += 1
            assert str(tmp_path) in str(problem)  # noqa: PT017
    assert refused > 100


WRONG = [None, True, -1, 1e400, "x", [], [1], {}, {"a": 1}, [["Edema"]], ["Edema", "Edema"], "9" * 5000]


@pytest.mark.parametrize(
    "key",
    [
        "findings",
        "model",
        "model.backbone",
        "model.width",
        "model.image_size",
        "model.more",
        "files",
        "files.head",
        "files.backbone",
    ],
)
def test_a_description_with_a_wrong_value_or_none_is_refused(key: str, model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    good = json.loads((tmp_path / "model.json").read_text())
    for value in WRONG:
        broken = json.loads(json.dumps(good))
        section = broken[key.partition(".")[0]] if "." in key else broken
        section[key.rpartition(".")[2]] = value
        (tmp_path / "model.json").write_text(json.dumps(broken))
        with pytest.raises(WeightsError, match=r"model\.json.*Copy the model's folder again"):
            load_model(tmp_path)
    for name in ("findings", "model", "files"):
        (tmp_path / "model.json").write_text(json.dumps({other: good[other] for other in good if other != name}))
        with pytest.raises(WeightsError, match=f"key '{name}'"):
            load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"\xff\xfe", b"[" * 900_000, b'{"a":' * 100_000, b"9" * 900_000])
def test_a_description_that_is_none_is_refused(content: bytes, model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.json: "):
        load_model(tmp_path)


def test_a_description_above_a_mebibyte_is_refused_unread(model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {"more": "x" * 2**20}, tmp_path)
    with pytest.raises(WeightsError, match=r"model\.json: 1,\d+,\d+ bytes; what belongs here has at most 1,048,576"):
        load_model(tmp_path)


def test_a_network_far_larger_than_its_file_is_refused_before_it_is_filled(
    model: SiteModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    description["model"] |= {"backbone": "resnet200", "width": 4.0}
    (tmp_path / "model.json").write_text(json.dumps(description))
    devices = []

    def watched(settings: Model, seed: int) -> torch.nn.Module:
        network = build_backbone(settings, seed)
        devices.append(next(network.parameters()).device.type)
        return network

    monkeypatch.setattr(model_file, "build_backbone", watched)
    with pytest.raises(WeightsError, match=r"backbone\.safetensors: does not fit model\.json.*"):
        load_model(tmp_path)
    assert devices == ["meta"]


# Run by itself, so that what it measures is the reader's alone. Prints growth in KiB, seconds and the error.
MEASURE = """
import re, sys, time
from pathlib import Path
from polyhead.errors import WeightsError
from polyhead.training.model_file import load_model
def kib(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))
def load(folder):
    try:
        load_model(folder)
    except WeightsError as problem:
        return str(problem)
load(Path(sys.argv[1]))
Path("/proc/self/clear_refs").write_text("5")
before, start = kib("VmRSS"), time.perf_counter()
said = load(Path(sys.argv[2]))
print(kib("VmHWM") - before, time.perf_counter() - start, said, sep="\\t")
"""


@pytest.mark.slow
def test_a_list_of_findings_far_longer_than_the_head_is_refused_before_anything_so_long_is_made(
    tmp_path: Path,
) -> None:
    settings = Model(backbone="resnet10")  # 512 features a finding: 225 MB for this list
    backbone = build_backbone(settings, seed=0)
    model = SiteModel(backbone, build_head(512, FINDINGS, 0), FINDINGS)
    for name in ("good", "bad"):
        save_model(model, settings, STANDARD, {}, tmp_path / name)
    description = json.loads((tmp_path / "bad/model.json").read_text())
    description["findings"] = [f"{number:x}" for number in range(110_000)]
    (tmp_path / "bad/model.json").write_text(json.dumps(description, separators=(",", ":")))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "good"), str(tmp_path / "bad")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)
    growth, seconds, said = done.stdout.rstrip("\n").split("\t")
    assert "bad/head.safetensors: does not fit model.json." in said
    assert "shape (2, 512) instead of (110000, 512): weight" in said
    assert int(growth) < 100_000
    assert float(seconds) < 10


def test_a_long_list_of_findings_that_the_head_has_is_loaded_in_any_order(tmp_path: Path) -> None:
    names = [f"{number:x}" for number in range(50_000)]
    backbone = build_backbone(TINY, seed=0)
    head = torch.nn.Linear(feature_count(backbone), len(names))
    save_model(SiteModel(backbone, head, names), TINY, STANDARD, {}, tmp_path)
    began = time.monotonic()
    loaded = load_model(tmp_path, names[::-1])
    assert time.monotonic() - began < 10
    assert torch.equal(loaded.head.weight, head.weight.flip(0))
    with pytest.raises(WeightsError, match="was trained for 0, 1, ") as refused:
        load_model(tmp_path, ["Edema"])
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_an_outline(name: str) -> None:
    with torch.device("meta"):
        outline = build_backbone(Model(backbone=name), seed=0).state_dict()
    assert all(tensor.device.type == "meta" for tensor in outline.values())


def replace_part(folder: Path, part: str, tensors: dict[str, torch.Tensor]) -> None:
    """Write other tensors, and the description that goes with them."""
    description = json.loads((folder / "model.json").read_text())
    description["files"][part] = asdict(write_tensors(folder / f"{part}.safetensors", tensors))
    (folder / "model.json").write_text(json.dumps(description))


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_a_byte_changed_anywhere_in_the_tensors_is_found(part: str, model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    file = tmp_path / f"{part}.safetensors"
    raw = file.read_bytes()
    for place in range(0, len(raw), len(raw) // 50):
        file.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(WeightsError, match=rf"{part}\.safetensors: is not what was written"):
            load_model(tmp_path)


@pytest.mark.parametrize("part", ["backbone", "head"])
def test_tensors_of_another_model_are_refused_by_name(part: str, model: SiteModel, tmp_path: Path) -> None:
    save_model(model, TINY, STANDARD, {}, tmp_path)
    file = tmp_path / f"{part}.safetensors"
    good = read_tensors(file, WeightsError, most_bytes=2**20)
    name = next(name for name in good if name.endswith("weight"))
    for value in (torch.zeros(0), torch.zeros_like(good[name])[..., :1], good[name].int(), good[name] / 0):
        replace_part(tmp_path, part, good | {name: value})
        with pytest.raises(WeightsError, match=rf"{part}\.safetensors: does not fit(.|\n)*{name}"):
            load_model(tmp_path)
    replace_part(tmp_path, part, {other: good[other] for other in good if other != name} | {"other": torch.zeros(1)})
    with pytest.raises(WeightsError, match=f"left over: other\nmissing: {name}"):
        load_model(tmp_path)


def test_predictions_keep_blank_labels_blank(model: SiteModel) -> None:
    DATA.labels[0, 1] = np.nan
    table = predictions_table(DATA, FINDINGS, predict_split(model, DATA))
    assert table.height == 12
    assert table.filter(finding="Mass")["label"].null_count() == 1
    assert table.filter(finding="Edema")["label"].null_count() == 0
    assert table["image"][:6].to_list() == list(DATA.images)
