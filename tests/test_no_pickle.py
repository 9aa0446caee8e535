"""Nothing is ever unpickled: every reader is offered pickles that would leave a mark, and the source is searched."""

import ast
import io
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import polyhead
from polyhead.errors import PolyheadError
from polyhead.imaging.cache_files import open_array, read_header, read_journal
from polyhead.imaging.recipe import STANDARD
from polyhead.manifest import read_manifest
from polyhead.predictions import read_predictions, write_predictions
from polyhead.site_file import read_site_file
from polyhead.study_file import load_study
from polyhead.training.backbone import build_backbone, feature_count
from polyhead.training.model import SiteModel, build_head
from polyhead.training.model_file import load_model, save_model
from polyhead.training.weights import load_weights
from tests.conftest import TINY

SOURCES = sorted(Path(polyhead.__file__).parent.rglob("*.py"))


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def pytorch(canary: Canary) -> bytes:
    stream = io.BytesIO()
    torch.save({"conv1.weight": canary}, stream)
    return stream.getvalue()


def old_pytorch(canary: Canary) -> bytes:
    stream = io.BytesIO()
    torch.save({"conv1.weight": canary}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def plain(canary: Canary) -> bytes:
    return pickle.dumps(canary)


def text(canary: Canary) -> bytes:
    return pickle.dumps(canary, protocol=0)


def numpy_array(canary: Canary) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([canary], dtype=object), allow_pickle=True)
    return stream.getvalue()


MAKERS = {
    pytorch: lambda path: torch.load(path, weights_only=False),
    old_pytorch: lambda path: torch.load(path, weights_only=False),
    plain: lambda path: pickle.loads(path.read_bytes()),  # noqa: S301
    text: lambda path: pickle.loads(path.read_bytes()),  # noqa: S301
    numpy_array: lambda path: np.load(path, allow_pickle=True),
}


def network() -> torch.nn.Module:
    return build_backbone(TINY, seed=0)


def as_weights(content: bytes, folder: Path) -> None:
    for name in ("w.safetensors", "w.pt", "w.pth", "w.npy"):
        (folder / name).write_bytes(content)
        with pytest.raises(PolyheadError, match=name):
            load_weights(network(), folder / name)


def as_a_part_of_a_model(content: bytes, folder: Path) -> None:
    backbone = network()
    save_model(SiteModel(backbone, build_head(feature_count(backbone), ["a"]), ["a"]), TINY, STANDARD, {}, folder / "m")
    for name in ("backbone.safetensors", "head.safetensors", "model.json"):
        shutil.copytree(folder / "m", folder / name)
        (folder / name / name).write_bytes(content)
        with pytest.raises(PolyheadError, match=name):
            load_model(folder / name)


def as_predictions(content: bytes, folder: Path) -> None:
    for name in ("p.parquet", "p.csv", "p.pkl"):
        (folder / name).write_bytes(content)
        with pytest.raises(PolyheadError, match=name):
            read_predictions(folder / name)


def as_the_tables_of_a_study(content: bytes, folder: Path) -> None:
    for name in ("manifest.csv", "site.toml", "study.toml"):
        (folder / name).write_bytes(content)
    for name, read in (("manifest.csv", read_manifest), ("study.toml", load_study)):
        with pytest.raises(PolyheadError):
            read(folder / name)
    with pytest.raises(PolyheadError, match=r"site\.toml"):
        read_site_file(folder)


def as_a_pixel_cache(content: bytes, folder: Path) -> None:
    (folder / "a").write_bytes(content)
    assert open_array(folder / "a", (1,)) is None
    assert read_header(folder / "a") is None
    assert read_journal(folder / "a") == {}


READERS = [as_weights, as_a_part_of_a_model, as_predictions, as_the_tables_of_a_study, as_a_pixel_cache]


@pytest.mark.parametrize("make", MAKERS)
def test_unpickling_would_leave_a_mark(make: Callable[[Canary], bytes], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(make(Canary(tmp_path / "mark")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        MAKERS[make](tmp_path / "f")
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("offer", READERS)
def test_no_reader_unpickles(
    offer: Callable[[bytes, Path], None], make: Callable[[Canary], bytes], tmp_path: Path
) -> None:
    (tmp_path / "files").mkdir()
    offer(make(Canary(tmp_path / "mark")), tmp_path / "files")
    assert not (tmp_path / "mark").exists()


def test_no_column_of_objects_is_written(tmp_path: Path) -> None:
    table = {"image": ["a"], "patient_id": ["1"], "finding": ["Mass"], "label": [1], "score": [0.5]}
    odd = pl.DataFrame({**table, "image": pl.Series([Canary(tmp_path / "mark")], dtype=pl.Object)})
    with pytest.raises(PolyheadError):
        write_predictions(odd, tmp_path / "p.parquet")
    assert list(tmp_path.iterdir()) == []


MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml", "copyreg"}
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "torch.jit.load"}
METHODS = {"deserialize", "read_pickle"}


def breaches(tree: ast.AST) -> Iterator[str]:
    """Yield whatever in a module could execute what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from {alias.name.split(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            yield from {(node.module or "").split(".")[0]} & MODULES
            yield from {f"{node.module}.{alias.name}" for alias in node.names} & CALLS
        elif isinstance(node, ast.Call):
            yield from breaches_of_call(node)


def breaches_of_call(call: ast.Call) -> Iterator[str]:
    called = ast.unparse(call.func)
    if called in CALLS or called.split(".")[-1] in METHODS:
        yield called
    allows = [ast.unparse(word.value) for word in call.keywords if word.arg == "allow_pickle"]
    # NumPy's own default is to refuse; here it must be said.
    if allows not in ([], ["False"]) or (called in ("np.load", "numpy.load") and not allows):
        yield f"{called}, allow_pickle"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: "/".join(file.parts[-2:]))
def test_no_module_can_execute_what_a_file_says(file: Path) -> None:
    assert list(breaches(ast.parse(file.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        *("import pickle", "import pickle as p", "from pickle import loads", "from torch import load", "import joblib"),
        *(
            "torch.load(f)",
            "torch.load(f, weights_only=True)",
            "np.load(f)",
            "np.load(f, allow_pickle=True)",
            "exec(t)",
        ),
        *("np.load(f, allow_pickle=flag)", "np.save(f, a, allow_pickle=True)", "import marshal, shelve", "eval(t)"),
        *("import yaml", "pl.LazyFrame.deserialize(f)", "pd.read_pickle(f)"),
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert list(breaches(ast.parse(code)))


def test_the_search_passes_what_is_safe() -> None:
    assert not list(breaches(ast.parse("import json\njson.loads(t)\nnp.load(f, allow_pickle=False)\nmodel.eval()")))
