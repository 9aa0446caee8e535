"""A site's private state comes back as it was written, or not at all."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import RunError
from polyhead.federation.private_state import PrivateFile, PrivateState, load_private, private_path, save_private
from polyhead.training.tensor_file import Stored

OWN = PrivateState(
    {"head.weight": torch.tensor([[1.0, -0.0]]), "head.bias": torch.tensor([0.5])},
    {"head.weight.exp_avg": torch.tensor([[torch.nan, torch.inf]]), "head.weight.step": torch.tensor(3.0)},
)


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    return {name: (one.dtype, tuple(one.shape), one.contiguous().numpy().tobytes()) for name, one in tensors.items()}


@pytest.mark.parametrize("own", [OWN, PrivateState(OWN.model), PrivateState({}, {}), PrivateState({}, OWN.model)])
def test_a_private_state_comes_back_bit_for_bit(own: PrivateState, tmp_path: Path) -> None:
    file = save_private(tmp_path, "a", 4, own)
    assert file.rounds_done == 4
    assert private_path(tmp_path, "a", 4) == tmp_path / "sites" / "a" / "private-4.safetensors"
    back = load_private(tmp_path, "a", file)
    assert (bits(back.model), bits(back.optimizer)) == (bits(own.model), bits(own.optimizer))


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.sets(NAMES, max_size=4), st.sets(NAMES, max_size=4))
def test_model_and_optimizer_are_never_mistaken_for_each_other(
    tmp_path_factory: pytest.TempPathFactory, model: set[str], optimizer: set[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "names"
    own = PrivateState({name: torch.zeros(1) for name in model}, {name: torch.ones(2) for name in optimizer})
    back = load_private(folder, "a", save_private(folder, "a", 1, own))
    assert (bits(back.model), bits(back.optimizer)) == (bits(own.model), bits(own.optimizer))


def test_a_round_later_the_file_before_is_as_it_was(tmp_path: Path) -> None:
    before = save_private(tmp_path, "a", 1, OWN)
    content = private_path(tmp_path, "a", 1).read_bytes()
    save_private(tmp_path, "a", 2, PrivateState({"head.weight": torch.zeros(1)}))
    save_private(tmp_path, "b", 1, PrivateState({"head.weight": torch.zeros(1)}))
    assert private_path(tmp_path, "a", 1).read_bytes() == content
    assert bits(load_private(tmp_path, "a", before).model) == bits(OWN.model)


def test_the_same_state_is_the_same_file(tmp_path: Path) -> None:
    turned = PrivateState(dict(reversed(OWN.model.items())), dict(reversed(OWN.optimizer.items())))
    assert save_private(tmp_path, "a", 1, OWN).stored == save_private(tmp_path, "b", 1, turned).stored


def test_no_flipped_bit_and_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    file = save_private(tmp_path, "a", 1, OWN)
    path = private_path(tmp_path, "a", 1)
    whole = path.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
    cut = [whole[:length] for length in range(0, len(whole), 7)]
    for content in (*flipped, *cut, whole + b"\0", b""):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"private-1\.safetensors"):
            load_private(tmp_path, "a", file)
    path.write_bytes(whole)
    load_private(tmp_path, "a", file)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    path = private_path(tmp_path, "a", 1)
    file = PrivateFile(1, Stored(10, ""))
    with pytest.raises(RunError, match="cannot be read"):
        load_private(tmp_path, "a", file)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(RunError, match="is not a file"):
        load_private(tmp_path, "a", file)


@pytest.mark.parametrize("rounds_done", [0, 3])
def test_a_state_knows_after_how_many_rounds_it_is(rounds_done: int, tmp_path: Path) -> None:
    file = save_private(tmp_path, "a", rounds_done, OWN)
    assert load_private(tmp_path, "a", file).rounds_done == rounds_done
