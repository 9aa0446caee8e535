"""Whatever a site sends in a round, the run ends as if it had not been asked in that round, bit for bit."""

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from polyhead.errors import StudyError, UpdateError
from polyhead.federation import federate as loop_module
from polyhead.federation import simulate as simulate_module
from polyhead.federation import site as site_module
from polyhead.federation.outliers import Distance, distance
from polyhead.federation.sharing import Sharing
from polyhead.federation.site import site_round
from polyhead.federation.snapshot import Store
from polyhead.federation.start import build_models, initial_state, part_model
from polyhead.federation.update import SiteUpdate
from polyhead.training.model import SiteModel, build_head
from tests.conftest import FFL, TINY
from tests.federation.three_sites import (
    CPU,
    FED_BN,
    Part,
    Spoil,
    State,
    by_hand,
    differences,
    far,
    federate,
    plan_for,
    spoiling,
    three_sites,
)

FIRST = "backbone.conv1.weight"
COUNTER = "backbone.bn1.num_batches_tracked"
VARIANCE = "backbone.bn1.running_var"
ROUND = 1


# Whoever unpickles it ends the tests.
UNPICKLED = b"cbuiltins\nexec\n(Vraise SystemExit('a stranger's pickle was executed')\ntR."


class Canary:
    """Tells if it is ever pickled."""

    def __reduce__(self) -> Any:
        raise AssertionError("a stranger's object was pickled")


def sending(name: str, value: Callable[[torch.Tensor], Any]) -> Spoil:
    """Spoil one entry; the tensors are the model's own, so it is never done in place."""
    return lambda update, _: replace(update, state={**update.state, name: value(update.state[name])})


def adding(name: str, value: Any) -> Spoil:
    return lambda update, _: replace(update, state={**update.state, name: value})


def without(update: SiteUpdate, _: Mapping[str, torch.Tensor]) -> SiteUpdate:
    return replace(update, state={name: tensor for name, tensor in update.state.items() if name != FIRST})


def saying(**about: Any) -> Spoil:
    return lambda update, _: replace(update, **about)


def with_one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda sent: sent.index_put((torch.tensor(0),) * 4, torch.tensor(value))


KINDS: dict[str, tuple[Spoil, str]] = {
    # U01
    "one NaN": (sending(FIRST, with_one(math.nan)), rf"left out: {FIRST} holds a value that is not finite"),
    "one infinity": (sending(FIRST, with_one(-math.inf)), rf"left out: {FIRST} holds a value that is not finite"),
    "all NaN": (
        lambda update, _: replace(
            update, state={k: v * math.nan if v.is_floating_point() else v for k, v in update.state.items()}
        ),
        r"left out: backbone\.\S+ holds a value that is not finite",
    ),
    "overflow": (
        sending(FIRST, lambda sent: torch.full_like(sent, 3e38)),
        r"left out: too far: \S+ times the usual distance",
    ),
    # U02
    "missing": (without, rf"left out: {FIRST} is missing"),
    "empty": (saying(state={}), r"left out: .* are missing"),
    "no table": (saying(state=[torch.zeros(3)]), "left out: the entries are not a table"),
    "nothing": (saying(state=None), "left out: the entries are not a table"),
    "extra": (adding("backbone.more", torch.zeros(1)), r"left out: backbone\.more is not shared"),
    "odd name": (adding("x\x1b[2J\n", torch.zeros(1)), r"left out: x\\x1b\[2J\\n is not shared"),
    "shape": (sending(FIRST, torch.flatten), rf"left out: {FIRST} is torch.float32 \(\d+,\) instead of"),
    "type": (sending(FIRST, torch.Tensor.double), rf"left out: {FIRST} is torch.float64"),
    "sparse": (sending(FIRST, torch.Tensor.to_sparse), rf"left out: {FIRST} is not a dense tensor"),
    "no tensor": (sending(FIRST, torch.Tensor.numpy), rf"left out: {FIRST} is a ndarray"),
    "object": (sending(FIRST, lambda _: Canary()), rf"left out: {FIRST} is a Canary, not a plain tensor"),
    "pickle": (sending(FIRST, lambda _: UNPICKLED), rf"left out: {FIRST} is a bytes, not a plain tensor"),
    "counter": (sending(COUNTER, lambda _: torch.tensor(-1)), rf"left out: {COUNTER} counts from -1"),
    "variance": (sending(VARIANCE, torch.Tensor.neg), rf"left out: {VARIANCE} holds a variance below 0"),
    # U03
    "head": (adding("head.weight", torch.zeros(1, 64)), r"left out: head\.weight is not shared .* stays at its site"),
    # U04
    "far": (far, r"left out: too far: \d+\.\d times the usual distance \(allowed: 10\)"),
    # U05
    "no examples": (saying(examples=0), "left out: 0 examples"),
    "fewer than none": (saying(examples=-24), "left out: -24 examples"),
    "NaN examples": (saying(examples=math.nan), "left out: nan examples"),
    "a crowd": (saying(examples=10**12), "left out: 1000000000000 examples"),
    "true examples": (saying(examples=True), "left out: True examples"),
    "text examples": (saying(examples="12"), "left out: 12 examples"),
    "NaN loss": (saying(loss=math.nan), "left out: the loss is nan"),
    "huge loss": (saying(loss=10**400), "left out: the loss is an integer"),
    # F07
    "late": (saying(round=ROUND - 1), f"left out: the update is not of round {ROUND}"),
    "early": (saying(round=ROUND + 1), f"left out: the update is not of round {ROUND}"),
    "another's name": (saying(site="a"), "failed: the update carries another site's name"),
    "a stranger's name": (saying(site="z"), "failed: the update carries another site's name"),
    "no name": (saying(site=None), "failed: the update carries another site's name"),
}


@cache
def reference(weighting: str, sharing: Sharing = FFL) -> State:
    return by_hand(plan_for(sharing, weighting=weighting), {(ROUND, "b")})


def assert_absent_for_a_round(
    kind: str, weighting: str, folder: Path, caplog: pytest.LogCaptureFixture, sharing: Sharing = FFL
) -> None:
    """The law: state, rows and warnings of a run in which site b spoiled a round."""
    end, rows = federate(folder, plan_for(sharing, weighting=weighting))
    assert differences(end, reference(weighting, sharing)) == []
    status = {(row.round, row.site): row.status for row in rows}
    bad = status.pop((ROUND, "b"))
    assert re.match(kind, bad), bad
    assert len(bad) < 400
    assert set(status.values()) == {"averaged"}
    assert len(status) == 3 * 3 - 1
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning == f"round {ROUND}, site b: {bad}"


def hostile(monkeypatch: pytest.MonkeyPatch, parts: Any) -> None:
    monkeypatch.setattr(simulate_module, "site_round", parts)


def test_without_a_hostile_site_the_loop_by_hand_is_that_of_simulate(tmp_path: Path) -> None:
    end, rows = federate(tmp_path, plan_for())
    assert differences(end, by_hand(plan_for())) == []
    assert {row.status for row in rows} == {"averaged"}
    # A round of b changes everything: the comparisons below can fail.
    assert len(differences(end, reference("equal"))) > 10


@pytest.mark.parametrize("weighting", ["equal", "examples"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_round_of_a_site_is_as_if_it_had_not_been_asked(
    kind: str, weighting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, found = KINDS[kind]
    hostile(monkeypatch, spoiling({(ROUND, "b")}, spoil))
    assert_absent_for_a_round(found, weighting, tmp_path, caplog)


def test_a_private_batch_norm_entry_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hostile(monkeypatch, spoiling({(ROUND, "b")}, adding("backbone.bn1.running_mean", torch.zeros(8))))
    found = r"left out: backbone\.bn1\.running_mean is not shared and must not leave the site\.$"
    assert_absent_for_a_round(found, "equal", tmp_path, caplog, FED_BN)


def test_a_step_a_thousand_times_too_long_is_clipped_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = plan_for(distance_rule="clip", distance_factor=10.0)
    hostile(monkeypatch, spoiling({(ROUND, "b")}, far))
    end, rows = federate(tmp_path, plan)

    # By hand: the distances of round 1 are known once all have been there, so b's step is shortened in a second run.
    distances: dict[str, Distance] = {}

    def watched(*round_of: Any) -> Part:
        update, own = spoiling({(ROUND, "b")}, far)(*round_of)
        if update.round == ROUND:
            distances[update.site] = distance(update.state, round_of[4])
        return update, own

    by_hand(plan, parts=watched)
    medians = [sorted(parts)[1] for parts in zip(*distances.values(), strict=True)]
    b = distances["b"]
    share = 10.0 / max(b.weights / medians[0], b.statistics / max(medians[1], 0.1))

    def shortened(update: SiteUpdate, shared: Mapping[str, torch.Tensor]) -> SiteUpdate:
        sent = far(update, shared).state
        begin = {name: tensor.double() for name, tensor in shared.items()}
        nearer = {
            name: (begin[name] + share * (tensor.double() - begin[name])).float()
            for name, tensor in sent.items()
            if tensor.is_floating_point()
        }
        return replace(update, state={**sent, **nearer})

    assert share < 0.1
    assert differences(end, by_hand(plan, parts=spoiling({(ROUND, "b")}, shortened))) == []
    status = {(row.round, row.site): row.status for row in rows}
    assert re.match(r"clipped: too far: \d+\.\d times the usual distance", status.pop((ROUND, "b")))
    assert set(status.values()) == {"averaged"}
    assert "round 1, site b: clipped: too far" in caplog.text


def test_of_a_site_that_is_hostile_in_every_round_people_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    when = {(round_, "b") for round_ in range(3)}
    hostile(monkeypatch, spoiling(when, KINDS["one NaN"][0]))
    end, rows = federate(tmp_path, plan_for())
    assert differences(end, by_hand(plan_for(), when)) == []
    assert [row.status.split(":")[0] for row in rows if row.site == "b"] == ["left out"] * 3
    told = [r.levelname for r in caplog.records if r.name == loop_module.__name__ and "site b: left" in r.message]
    assert told == ["WARNING", "INFO", "INFO"]


def test_without_a_distance_rule_a_spoiled_update_is_left_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(distance_rule="off")
    hostile(monkeypatch, spoiling({(ROUND, "b")}, KINDS["one NaN"][0]))
    end, _ = federate(tmp_path, plan)
    assert differences(end, reference("equal")) == []


@pytest.mark.parametrize("aggregation", ["median", "trimmed_mean"])
def test_a_robust_mean_goes_over_the_others(aggregation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two updates the median is the mean, and a fifth of two is none."""
    plan = plan_for(rounds=1, aggregation=aggregation)
    hostile(monkeypatch, spoiling({(0, "b")}, KINDS["one NaN"][0]))
    end, _ = federate(tmp_path, plan)
    assert differences(end, by_hand(plan, {(0, "b")})) == []


@pytest.mark.parametrize("sharing", [FFL, FED_BN])
@pytest.mark.parametrize("change", ["added", "missing"])
def test_a_server_that_asks_for_what_is_not_shared_gets_nothing(
    change: str, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, plan = three_sites()[0], plan_for(sharing)
    model = build_models([site], TINY, sharing, plan.seed, CPU)["a"]
    shared, own = part_model(model, sharing)
    if change == "added":
        named = "head.weight is not shared in this study and stays here"
        shared["head.weight"] = own.model["head.weight"]
    else:
        named = f"{FIRST} is missing in what the server sent"
        del shared[FIRST]
    monkeypatch.setattr(site_module, "train_locally", None)
    monkeypatch.setattr(site_module, "load_state", None)
    with pytest.raises(UpdateError, match=named):
        site_round(site, model, plan, 0, shared, own)


def test_a_server_may_not_ask_for_private_batch_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    site, plan = three_sites()[0], plan_for(FED_BN)
    model = build_models([site], TINY, FED_BN, plan.seed, CPU)["a"]
    shared, own = part_model(model, FED_BN)
    shared["backbone.bn1.running_mean"] = own.model.pop("backbone.bn1.running_mean")
    monkeypatch.setattr(site_module, "train_locally", None)
    with pytest.raises(UpdateError, match=r"backbone\.bn1\.running_mean is not shared in this study and stays here"):
        site_round(site, model, plan, 0, shared, own)


@pytest.mark.parametrize(
    ("sharing", "head", "what"),
    [
        (Sharing(backbone=False, batch_norm=True, head=False), build_head(1, ["Edema"], 0), "nothing would leave"),
        (FFL, torch.nn.Flatten(), "everything would leave"),
    ],
)
def test_a_study_that_shares_nothing_or_everything_does_not_begin(
    sharing: Sharing, head: Any, what: str, tmp_path: Path
) -> None:
    model = SiteModel(torch.nn.Conv2d(1, 1, 1), head, ["Edema"])
    with pytest.raises(StudyError, match=what):
        initial_state({"a": model}, sharing, Store(tmp_path, "key"))
    assert list(tmp_path.iterdir()) == []
