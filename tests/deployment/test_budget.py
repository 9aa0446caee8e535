"""A site's account of privacy: charged before an answer leaves, never twice, never beyond its limit."""

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyhead.accountant import Steps, epsilon_of
from polyhead.config import Privacy
from polyhead.deployment import hospital as hospital_module
from polyhead.deployment.agreed import Agreed
from polyhead.deployment.budget import limit_in, site_secret, spent
from polyhead.deployment.coordinator import EVENTS, Segment, run_segment
from polyhead.deployment.events import read_events
from polyhead.deployment.gathering import gather
from polyhead.deployment.hospital import Hospital, open_hospital, take_part
from polyhead.deployment.leaving import what_it_costs
from polyhead.deployment.question import Question
from polyhead.errors import RunError, StudyError, UpdateError
from polyhead.federation.secret_draw import public_secret
from polyhead.federation.start import initial_shared
from polyhead.federation.update import SiteUpdate
from tests.deployment.houses_by_hand import agreed_in, carry_to, differences, open_all, simulated, state_of, write_study

pytest.importorskip("opacus", reason="needs the extra: pip install '.[privacy]' in Polyhead's folder")

ROUNDS = 3
NOISE = "[privacy]\nnoise = 1.0\ndelta = 1e-5\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = write_study(tmp_path_factory.mktemp("study"), ROUNDS)
    text = file.read_text().replace("image_size = 32\n", 'image_size = 32\nnorm = "group"\n')
    file.write_text(
        text.replace('methods = ["ffl"]', 'methods = ["local", "ffl"]').replace("_size = 8", "_size = 4") + NOISE
    )
    return file


@pytest.fixture
def agreed(study: Path) -> Agreed:
    return agreed_in(study)


def open_one(study: Path, agreed: Agreed, folder: Path, own: str = "", method: str = "ffl") -> Hospital:
    file = study.with_name(f"own-{folder.name}.toml")
    file.write_text(f'manifest = "a/manifest.csv"\n{own}')
    return open_hospital(agreed, "a", file, folder, method, 0)


def question(hospital: Hospital, round_: int = 0, weights: int = 0) -> Question:
    agreed, plan = hospital.agreed, hospital.plan
    shared = initial_shared(agreed.model, plan.sharing, weights, ["any"])
    return Question(agreed.sha256, "ffl", 0, round_, 0, (1, 2, 3), shared)


def answered_in(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "privacy.json").read_text())["answered"])


def test_with_the_same_secrets_it_is_a_simulation_bit_for_bit(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    for site in "abc":
        site_secret(tmp_path / site)
        (tmp_path / site / "noise.secret").write_bytes(public_secret(0, site))
    for until in (1, ROUNDS):
        carry = carry_to(open_all(study, agreed, tmp_path), [])
        run_segment(agreed, Segment(f"to {until}", "ffl", 0, until), tmp_path / "server", carry)
    found = state_of(agreed, tmp_path / "server", {site: tmp_path / site for site in "abc"})
    assert not differences(simulated(study, tmp_path / "sim"), found)
    rows = [row for e in read_events(tmp_path / "server/ffl/seed-0" / EVENTS) for row in e.get("rows", ())]
    assert {row["status"] for row in rows} == {"averaged"}
    assert {row["loss"] for row in rows} == {None}
    assert [one["round"] for one in answered_in(tmp_path / "a")] == [0, 1, 2]
    page = gather(agreed, tmp_path / "server", tmp_path / "out").read_text()
    assert "privacy.noise" in page
    assert ",nan," in (tmp_path / "out/rounds.csv").read_text()


def test_a_secret_is_made_once_for_its_owner_alone_and_every_site_has_another(tmp_path: Path) -> None:
    one = site_secret(tmp_path / "a")
    assert len(one) == 32
    assert site_secret(tmp_path / "a") == one != site_secret(tmp_path / "b")
    for name in ("noise.secret", "privacy.json"):
        assert stat.S_IMODE((tmp_path / "a" / name).stat().st_mode) == 0o600


def test_the_account_holds_neither_the_secret_nor_a_key(
    study: Path, agreed: Agreed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[bytes] = []
    charge = hospital_module.charge
    monkeypatch.setattr(hospital_module, "charge", lambda b, key, *rest: (keys.append(key), charge(b, key, *rest)))
    one = open_one(study, agreed, tmp_path / "home")
    take_part(one, question(one))
    text = (tmp_path / "home/privacy.json").read_text()
    assert one.site.secret.hex() not in text
    assert keys[0].hex() not in text


def test_the_same_question_is_answered_alike_and_charged_once_another_is_not(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    one = open_one(study, agreed, tmp_path / "home")
    first = _sent(take_part(one, question(one)))
    # As a process that begins anew.
    again = open_one(study, agreed, tmp_path / "home")
    assert _sent(take_part(again, question(again))) == first
    assert len(answered_in(tmp_path / "home")) == 1
    take_part(again, question(again, weights=1))
    take_part(again, question(again, round_=1))
    assert len(answered_in(tmp_path / "home")) == 3
    found = spent(tmp_path / "home")
    assert found is not None
    patients = len(set(one.site.train.patients))
    assert found.epsilon == epsilon_of([Steps(1.0, 4 / patients, 3)], 1e-5)
    other = open_one(study, agreed, tmp_path / "elsewhere")
    assert _sent(take_part(other, question(other))) != first


def _sent(update: SiteUpdate) -> dict[str, bytes]:
    assert (update.examples, update.loss) == (1, None)
    return {name: tensor.numpy().tobytes() for name, tensor in update.state.items()}


def test_the_charge_is_on_disk_before_anything_is_computed(
    study: Path, agreed: Agreed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    one = open_one(study, agreed, tmp_path / "home")
    with monkeypatch.context() as patch:
        patch.setattr(hospital_module, "site_round", killed)
        with pytest.raises(KeyboardInterrupt):
            take_part(one, question(one))
    assert len(answered_in(tmp_path / "home")) == 1
    again = open_one(study, agreed, tmp_path / "home")
    take_part(again, question(again))
    assert len(answered_in(tmp_path / "home")) == 1


def test_beyond_its_limit_a_site_answers_nothing_and_the_others_go_on(
    study: Path, agreed: Agreed, tmp_path: Path
) -> None:
    hospitals = open_all(study, agreed, tmp_path)
    patients = len(set(hospitals["a"].site.train.patients))
    limit = epsilon_of([Steps(1.0, 4 / patients, 2)], 1e-5)
    cost = what_it_costs(agreed, patients, limit)
    assert cost is not None
    assert (cost.rounds, cost.allowed) == (ROUNDS, 2)
    assert hospitals["a"].budget is not None
    hospitals["a"] = replace(hospitals["a"], budget=replace(hospitals["a"].budget, limit=limit))
    run_segment(agreed, Segment("1", "ffl", 0, ROUNDS), tmp_path / "server", carry_to(hospitals, []))
    rows = [row for e in read_events(tmp_path / "server/ffl/seed-0" / EVENTS) for row in e.get("rows", ())]
    of_a = [row["status"] for row in rows if row["site"] == "a"]
    assert of_a[:2] == ["averaged"] * 2
    assert of_a[2].startswith("failed: the privacy limit that this site has set itself is reached")
    assert len(answered_in(tmp_path / "a")) == 2
    assert [row["status"] for row in rows if row["site"] == "b"] == ["averaged"] * 3
    found = spent(tmp_path / "a")
    assert found is not None
    assert found.epsilon <= limit


def test_the_limit_comes_from_the_site_s_own_file(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    one = open_one(study, agreed, tmp_path / "home", "[privacy]\nepsilon = 0.01\n")
    with pytest.raises(UpdateError, match="limit"):
        take_part(one, question(one))
    assert answered_in(tmp_path / "home") == []


def test_where_nothing_leaves_nothing_is_charged(study: Path, agreed: Agreed, tmp_path: Path) -> None:
    alone = open_one(study, agreed, tmp_path / "home", method="local")
    update = take_part(alone, Question(agreed.sha256, "local", 0, 0, 0, (1,), {}))
    assert (update.examples, update.loss, update.state) == (1, None, {})
    assert spent(tmp_path / "home") is None


@pytest.mark.parametrize(
    ("settings", "noise", "words"),
    [
        ({"privacy": 3}, 1.0, r"\[privacy\]"),
        ({"privacy": {"epsilom": 1.0}}, 1.0, r"privacy\.epsilom.*epsilon"),
        ({"privacy": {"epsilon": 0}}, 1.0, "above 0"),
        ({"privacy": {"epsilon": True}}, 1.0, "above 0"),
        ({"privacy": {"epsilon": float("inf")}}, 1.0, "above 0"),
        ({"privacy": {"epsilon": 8.0}}, 0.0, "adds no noise"),
    ],
)
def test_a_limit_that_is_none_is_refused(settings: dict[str, Any], noise: float, words: str) -> None:
    with pytest.raises(StudyError, match=f"home.toml.*{words}"):
        limit_in(settings, Privacy(noise=noise), "home.toml")
    assert limit_in({"privacy": {"epsilon": 8}}, Privacy(noise=1.0), "home.toml") == 8.0
    assert limit_in({}, Privacy(), "home.toml") is None


@pytest.mark.parametrize("text", ["", "{}", '{"delta": 1e-5, "answered": [{"noise": 0}]}', "[" * 9999])
def test_a_damaged_account_is_not_taken_for_an_empty_one(text: str, tmp_path: Path) -> None:
    site_secret(tmp_path)
    (tmp_path / "privacy.json").write_text(text)
    with pytest.raises(RunError, match=r"privacy\.json: is damaged"):
        spent(tmp_path)


def test_a_secret_without_its_account_or_cut_short_is_refused(tmp_path: Path) -> None:
    site_secret(tmp_path)
    (tmp_path / "privacy.json").unlink()
    with pytest.raises(RunError, match="is missing"):
        site_secret(tmp_path)
    site_secret(tmp_path / "b")
    (tmp_path / "b/noise.secret").write_bytes(b"short")
    with pytest.raises(RunError, match="damaged"):
        site_secret(tmp_path / "b")
