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
from polyhead.federation.private_state import PrivateState, load_private, save_private
from polyhead.federation.snapshot import Snapshot, Store, best_snapshot, load_snapshot, save_snapshot
from tests.federation.three_sites import KEY


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """Give the folder of a snapshot after round 1, and its manifest."""
    folder = tmp_path_factory.mktemp("one")
    own = save_private(folder, "a", 1, PrivateState({"head.weight": torch.zeros(2)}))
    save_snapshot(Snapshot(1, {"backbone.w": torch.ones(2)}, {"a": own}, 0.75), Store(folder, KEY))
    return folder, (folder / "round-1.json").read_bytes()


def load_with(made: tuple[Path, bytes], manifest: bytes) -> Snapshot | None:
    folder, _ = made
    (folder / "round-1.json").write_bytes(manifest)
    return load_snapshot(Store(folder, KEY), ["a"])


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
    found = load_with(made, changed(made, validation=0.5))
    assert found is not None
    assert found.validation == 0.5


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(made: tuple[Path, bytes]) -> None:
    whole = made[1]
    for place in range(len(whole)):
        for bit in range(8):
            flipped = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            assert load_with(made, flipped) is None, (place, bit)


HOSTILE: dict[str, Any] = {
    "parent": {"private": {"../a": [1, 10, "0" * 64]}},
    "absolute": {"private": {"/etc": [1, 10, "0" * 64]}},
    "parent round": {"private": {"a": ["../../x", 10, "0" * 64]}},
    "huge round": {"private": {"a": [10**4000, 10, "0" * 64]}},
    "negative size": {"shared": [-1, "0" * 64]},
    "infinite size": {"shared": [math.inf, "0" * 64]},
    "NaN size": {"shared": [math.nan, "0" * 64]},
    "infinite round": {"private": {"a": [math.inf, 10, "0" * 64]}},
    "NaN validation": {"validation": math.nan},
    "infinite validation": {"validation": math.inf},
    "huge validation": {"validation": 10**400},
    "text": {"shared": "12"},
    "list": {"private": [1, 2]},
    "nothing": {"private": None},
    "too few": {"private": {"a": [1]}},
    "nested": {"private": {"a": [[[[1]]], {}, []]}},
    "another round": {"rounds_done": 7},
    "true": {"validation": True},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_manifest_is_refused_and_not_followed(kind: str, made: tuple[Path, bytes]) -> None:
    assert load_with(made, changed(made, **HOSTILE[kind])) is None


def test_a_path_out_of_the_folder_is_not_followed_though_a_good_file_is_there(made: tuple[Path, bytes]) -> None:
    folder, whole = made
    private = json.loads(whole)["private"]
    outside = folder.parent / "outside" / "private-1.safetensors"
    outside.parent.mkdir()
    outside.write_bytes((folder / "a" / "private-1.safetensors").read_bytes())
    assert load_with(made, changed(made, private={"../outside": private["a"]})) is None


CONTENTS = [b"[" * 2**19, b"{" + b" " * 2**21 + b"}", b'{"a":' * 2**17, b"\xff\xfe", b"1" * 9999, b"", b"null", b"[]"]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_manifest_that_is_no_manifest_is_refused(content: bytes, made: tuple[Path, bytes]) -> None:
    assert load_with(made, content) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("0" * 64),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.just("a"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["key", "rounds_done", "validation", "shared", "private"]), JSON), JSON)
def test_whatever_a_manifest_says_it_is_refused_or_means_these_files(
    made: tuple[Path, bytes], entries: dict[str, Any], instead: Any
) -> None:
    for manifest in (changed(made, **entries), signed(instead)):
        found = load_with(made, manifest)
        if found is None:
            (made[0] / "round-1.json").write_bytes(manifest)
            with pytest.raises(RunError):
                best_snapshot(Store(made[0], KEY), ["a"])
        else:
            assert found.shared["backbone.w"].tolist() == [1, 1]
            assert load_private(made[0], "a", found.private["a"]).model["head.weight"].tolist() == [0, 0]
            assert found.validation is None or math.isfinite(found.validation)
