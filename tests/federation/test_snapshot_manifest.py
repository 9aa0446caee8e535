"""A snapshot's manifest that was damaged, or written by somebody else, is refused and leads nowhere."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyhead.errors import RunError
from polyhead.federation.outliers import Distance
from polyhead.federation.private_state import PrivateState, load_private, save_private
from polyhead.federation.snapshot import Snapshot, Store, load_shared, load_snapshot, save_snapshot
from tests.federation.three_sites import KEY


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Give the folder of a snapshot after round 1, and its manifest."""
    folder = tmp_path_factory.mktemp("one")
    own = save_private(folder, "a", 1, PrivateState({"head.weight": torch.zeros(2)}))
    shared = {"backbone.w": torch.ones(2)}
    save_snapshot(Snapshot(1, shared, {"a": own}, usual=Distance(1.5, 2.0)), Store(folder, KEY), {"a": 0.75})
    return folder, (folder / "round-1.json").read_bytes()


def load_with(made: tuple[Path, bytes], manifest: bytes) -> Snapshot | None:
    folder, _ = made
    (folder / "round-1.json").write_bytes(manifest)
    try:
        return load_snapshot(Store(folder, KEY), ["a"])
    except RunError as problem:
        assert "none of the states after 1 rounds can be used" in str(problem)  # noqa: PT017
        return None


def signed(content: Any) -> bytes:
    """Write a manifest with the hash that belongs to it, as somebody who means harm would."""
    if isinstance(content, dict):
        bare = {name: value for name, value in content.items() if name != "sha256"}
        content = {**bare, "sha256": hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()}
    return json.dumps(content).encode()


def changed(made: tuple[Path, bytes], **entries: Any) -> bytes:
    return signed({**json.loads(made[1]), **entries})


def test_a_manifest_is_read_and_this_file_signs_as_the_code_does(made: tuple[Path, bytes]) -> None:
    assert load_with(made, made[1]) is not None
    assert changed(made) == made[1]
    found = load_with(made, changed(made, usual=[0.5, 0.0]))
    assert found is not None
    assert found.usual == Distance(0.5, 0.0)
    assert (found.best["a"].rounds_done, found.best["a"].auroc) == (1, 0.75)
    # As versions without rules of the server wrote it.
    old = {name: value for name, value in json.loads(made[1]).items() if name != "moments"}
    found = load_with(made, signed(old))
    assert found is not None
    assert found.moments == {}


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(made: tuple[Path, bytes]) -> None:
    whole = made[1]
    for place in range(len(whole)):
        for bit in range(8):
            flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            assert load_with(made, flipped) is None, (place, bit)


FILE = {"bytes": 10, "sha256": "0" * 64}
OWN = {"rounds_done": 1, "stored": FILE}
HOSTILE: dict[str, Any] = {
    "parent": {"private": {"../a": OWN}},
    "absolute": {"private": {"/etc": OWN}},
    "parent round": {"private": {"a": {**OWN, "rounds_done": "../../x"}}},
    "huge round": {"private": {"a": {**OWN, "rounds_done": 10**4000}}},
    "infinite round": {"private": {"a": {**OWN, "rounds_done": math.inf}}},
    "negative size": {"shared": {**FILE, "bytes": -1}},
    "infinite size": {"shared": {**FILE, "bytes": math.inf}},
    "NaN size": {"shared": {**FILE, "bytes": math.nan}},
    "true size": {"shared": {**FILE, "bytes": True}},
    "NaN distance": {"usual": [math.nan, 1.0]},
    "infinite distance": {"usual": [math.inf, 1.0]},
    "huge distance": {"usual": [10**400, 1.0]},
    "negative distance": {"usual": [-1.0, 1.0]},
    "three distances": {"usual": [1.0, 1.0, 1.0]},
    "best of a parent": {"best": {"../../a": {"rounds_done": 1, "auroc": 0.5, "shared": FILE, "private": OWN}}},
    "best without files": {"best": {"a": {"rounds_done": 1, "auroc": 0.5}}},
    "NaN best": {"best": {"a": {"rounds_done": 1, "auroc": math.nan, "shared": FILE, "private": OWN}}},
    "text": {"shared": "12"},
    "moments without their file": {"moments": FILE},
    "moments of a path": {"moments": {**FILE, "path": "/etc/passwd"}},
    "moments in a list": {"moments": [1, 2]},
    "list": {"private": [1, 2]},
    "nothing": {"private": None},
    "too few": {"private": {"a": {"rounds_done": 1}}},
    "too many": {"shared": {**FILE, "path": "/etc/passwd"}},
    "nested": {"private": {"a": [[[[1]]], {}, []]}},
    "another round": {"rounds_done": 7},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_manifest_is_refused_and_not_followed(kind: str, made: tuple[Path, bytes]) -> None:
    assert load_with(made, changed(made, **HOSTILE[kind])) is None


def test_a_path_out_of_the_folder_is_not_followed_though_a_good_file_is_there(made: tuple[Path, bytes]) -> None:
    folder, whole = made
    private = json.loads(whole)["private"]
    outside = folder / "outside" / "private-1.safetensors"
    outside.parent.mkdir()
    outside.write_bytes((folder / "sites" / "a" / "private-1.safetensors").read_bytes())
    assert load_with(made, changed(made, private={"../outside": private["a"]})) is None
    best = json.loads(whole)["best"]
    assert load_with(made, changed(made, best={"../outside": best["a"]})) is None


CONTENTS = [b"[" * 2**19, b"{" + b" " * 2**21 + b"}", b'{"a":' * 2**17, b"\xff\xfe", b"1" * 9999, b"", b"null", b"[]"]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_manifest_that_is_no_manifest_is_refused(content: bytes, made: tuple[Path, bytes]) -> None:
    assert load_with(made, content) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("0" * 64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.just("a"), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["key", "rounds_done", "usual", "best", "shared", "private", "moments"]), JSON),
    JSON,
)
def test_whatever_a_manifest_says_it_is_refused_or_means_these_files(
    made: tuple[Path, bytes], entries: dict[str, Any], instead: Any
) -> None:
    for manifest in (changed(made, **entries), signed(instead)):
        found = load_with(made, manifest)
        if found is not None:
            assert found.shared["backbone.w"].tolist() == [1, 1]
            assert load_private(made[0], "a", found.private["a"]).model["head.weight"].tolist() == [0, 0]
            assert found.usual is None or all(map(math.isfinite, found.usual))
            for best in found.best.values():
                assert load_shared(Store(made[0], KEY), best.rounds_done, best.shared)["backbone.w"].tolist() == [1, 1]
