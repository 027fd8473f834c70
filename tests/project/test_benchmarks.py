"""The benchmarks measure what they say, in small."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def importable():
    """The modules of the benchmarks, for this file only."""
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def case(importable):
    import problems

    return problems.QUICK.make()


def test_all_coalitions_give_the_shapley_values_of_a_known_game(importable):
    import problems

    model = torch.nn.Sequential(torch.nn.Flatten(), Product())
    x, r = torch.tensor([[[2.0, 3.0, 5.0]]]), torch.tensor([[[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]])
    found = problems.shapley_values(problems.Case(model, x, r, np.arange(3).reshape(1, 3)))
    # x1 x2 + x3: of the product each player gets half its own change times the other's sum
    of_product = np.mean([[(2 - r) * (3 + r) / 2, (3 - r) * (2 + r) / 2] for r in (1.0, 0.0)], 0)
    np.testing.assert_allclose(found[0, :, 0], [*of_product, np.mean([4.0, 5.0])], rtol=1e-6)


class Product(torch.nn.Module):
    def forward(self, x):
        return x[:, :1] * x[:, 1:2] + x[:, 2:]


ADD_UP = ("deepshap", "captum.IntegratedGradients", "Kernel", "Permutation", "ShapleyValueSampling")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.wide
def test_every_peer_explains(case):
    import explainers
    import problems

    exact, wanted = problems.shapley_values(case), problems.outputs(case)
    assert problems.gap(exact, wanted) < 1e-5
    for name, kind in explainers.PEERS.items():
        peer = kind()
        peer.prepare(case)
        values = peer.explain(case.x, peer.budgets[-1])
        if name in explainers.YARDSTICKS:
            assert values is None
            continue
        players = case.by_player(values)
        assert players.shape == exact.shape
        if any(part in name for part in ADD_UP):
            assert problems.gap(players, wanted) < 1e-3, name
        if "Kernel" in name:  # its largest budget is enough for all coalitions
            assert problems.distance(players, exact) < 1e-4


@pytest.mark.wide
def test_what_data_sets_cost(importable, tmp_path, monkeypatch):
    import dataset
    import tables

    for name, value in (("PART", 10), ("REFERENCES", 3), ("SAMPLED_EVERY", 1e-3)):
        monkeypatch.setattr(dataset, name, value)
    run = dataset.run(40, str(tmp_path / "run"), {})
    assert run["rows_per_second"] == pytest.approx(40 / run["seconds"])
    assert 0 < run["seconds_to_first_part"] < run["seconds"]
    assert 0 < run["most_gb"] < 100
    (tmp_path / "parts").mkdir()
    made = {"machine": {"cores": 2, "processor": "slow", "date": "today"}, "rows": 40, "steps": 30, "references": 3}
    made |= {"rows_per_part": 10, "runs": {"alone": dataset.plain(40), "one process": run}}
    made |= {"writing": dataset.writing(40, str(tmp_path / "parts")), "lengths": dataset.lengths(20)}
    assert len(list((tmp_path / "parts").iterdir())) == 4
    told = tables.dataset(made)
    assert f"| one process | {run['rows_per_second']:.0f} |" in told
    packs, over = (made["lengths"][name] for name in ("packs", "runs over the padding"))
    assert min(*packs.values(), *over.values()) > 0
    assert f"over the padding {tables.ratio(over['padded'] / over['grouped'])}." in told


def test_inputs_are_added_up_to_windows():
    import problems

    windows = problems.Problem("", lambda: torch.nn.Identity(), features=2, steps=6, players=3).make()
    assert windows.groups.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1], [2, 2], [2, 2]]
    values = np.arange(24.0).reshape(1, 6, 2, 2)
    np.testing.assert_array_equal(windows.by_player(values), values.reshape(1, 3, 4, 2).sum(2))


def test_memory_is_that_of_the_peak():
    import processes

    with processes._Peak() as peak:
        block = np.ones(64 * 2**17)  # 64 MiB
        latest = time.monotonic() + 60  # the thread that looks may have to wait for a busy machine
        while peak.extra < block.nbytes * 0.95 and time.monotonic() < latest:
            time.sleep(processes.SAMPLED_EVERY)
        del block
    assert 60 * 2**20 < peak.extra < 100 * 2**20


@pytest.mark.long
def test_a_quick_run_measures_draws_and_writes(tmp_path, capsys, monkeypatch):
    import accuracy
    import dial
    import draw
    import gradients
    import ground_truth
    import peers
    import scaling

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    peers.main(["--quick", "--only", "deepshap", "--output", str(tmp_path / "peers.json")])
    assert "forward + gradient" in capsys.readouterr().out
    accuracy.main(["--quick", "--only", "deepshap", "--output", str(tmp_path / "accuracy.json")])
    scaling.main(["--quick", "--output", str(tmp_path / "scaling.json")])
    ground_truth.main(["--quick", "--output", str(tmp_path / "ground_truth.json")])
    dial.main(["--quick", "--output", str(tmp_path / "dial.json")])
    gradients.main(["--quick", "--output", str(tmp_path / "gradients.json")])
    keras = {
        "model": "LSTM",
        "operations": 7,
        "first": 2.0,
        "second": 0.5,
        "gradient": 0.1,
        "default": 0.2,
        "frozen": 0.05,
    }
    (tmp_path / "gradients_keras.json").write_text(json.dumps({"figures": [keras]}))
    on_gpu = {"model": "GRU", "examples": 8, "references": 100, "deepshap": 0.016, "ratio": 16.3}
    (tmp_path / "gpu.json").write_text(
        json.dumps({"device": "A GPU", "machine": {"torch": "2.11.0"}, "figures": [on_gpu]})
    )
    figures = {"seconds": 0.5, "gap": 0.0, "distance": 0.25}
    methods = dict.fromkeys(("deepshap", "deepshap, effort=16", "its own"), figures)
    (tmp_path / "forecasters.json").write_text(
        json.dumps({"packages": {"darts": "1.0"}, "date": "today", "results": {"TCN": methods}})
    )
    page = tmp_path / "page.md"
    places = (
        "speed",
        "forecasters",
        "gpu",
        "gradients-keras",
        "large",
        "gradients",
        "ground-truth",
        "dial",
        "dial-losses",
        "dial-efforts",
    )
    page.write_text("before\n" + "after\n".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in places))
    draw.main(["--results", str(tmp_path), "--images", str(tmp_path), "--pages", str(page)])

    found = json.loads((tmp_path / "peers.json").read_text())
    assert {row["peer"] for row in found["speed"]} == {"forward + gradient", "deepshap"}
    near = json.loads((tmp_path / "accuracy.json").read_text())["accuracy"]
    assert all(row["seconds"] > 0 and math.isfinite(row["ratio"]) for row in found["speed"] + near)
    ours = next(row for row in near if row["peer"] == "deepshap")
    assert ours["gap"] < 1e-4
    assert 0 < ours["distance"] < 1
    assert found["machine"]["torch"] == torch.__version__
    grown = json.loads((tmp_path / "scaling.json").read_text())
    assert {row["axis"] for row in grown["points"]} == {"steps", "examples", "references", "outputs"}
    assert grown["large"]["seconds"] > 0
    assert [row["budget"] for row in grown["budgets"]] == ["100 MB", "300 MB", "1 GB", "3 GB", "8 GB"]
    assert [row["threads"] for row in grown["threads"]] == [1, 2]
    truth = json.loads((tmp_path / "ground_truth.json").read_text())
    assert {row["method"] for row in truth["found"]} == set(ground_truth.METHODS)
    by_cell = [row for row in truth["found"] if row["task"].startswith("rare") and "steps" not in row["method"]]
    for row in by_cell:  # outside the squares the values are zeros, whatever the method
        assert (row["AUPRC"] == pytest.approx([1])) == (row["method"] != "TimeSHAP"), row
    dialled = json.loads((tmp_path / "dial.json").read_text())
    least, *_, most = [row["distance"] for row in dialled["rows"] if row["method"] == "deepshap"]
    assert 0 < least < 0.1  # Deep SHAP's
    assert most < 1e-6  # all coalitions of five players
    assert [row["effort"] for row in dialled["efforts"]] == [1, 2, 4, 8, 16, 32, 64, 128]
    for name in ("accuracy", "scaling", "dial"):
        assert matplotlib.image.imread(tmp_path / f"benchmark-{name}.png").std() > 0.02
    text = page.read_text()
    assert text.startswith("before\n<!-- speed -->\n|  | forward + gradient | deepshap |")
    assert "old" not in text
    assert "after" in text
    assert "budget 16 MB: " in text
    assert "| TCN: its own | 0.50 s, 0.2500 | 0.50 s, 0.2500 | 0.50 s, 0.2500 |" in text
    assert "| AUPRC | hidden states, GRU |" in text
    assert "| LSTM | 2.00 s | 2.00 | 0.50 |" in text
    assert "A GPU, torch 2.11.0:\n\n|  | 8 × 100 pairs |\n| --- | ---: |\n| GRU | 16 ms (16) |" in text


def test_measures_of_salient_cells_are_areas_over_all_thresholds():
    import ground_truth

    values = np.array([[[0.5, -4.0], [1.0, 0.0]], [[3.0, 0.0], [-2.0, 1.0]]])  # each row is brought to 0...1 by itself
    salient = np.array([[[0, 1], [1, 0]], [[0, 0], [1, 0]]], bool)
    sizes = np.array([0.125, 1.0, 0.25, 0.0, 1.0, 0.0, 2 / 3, 1 / 3])
    thresholds, precision, recall = np.unique(sizes), [], []
    for threshold in thresholds:
        chosen, true = sizes >= threshold, salient.ravel()
        precision.append((chosen & true).sum() / chosen.sum())
        recall.append((chosen & true).sum() / true.sum())
    found = ground_truth.measures(values, salient)
    widths = np.diff(thresholds)
    for name, heights in (("AUP", np.array(precision)), ("AUR", np.array(recall))):
        np.testing.assert_allclose(found[name], (widths * (heights[1:] + heights[:-1]) / 2).sum())
    falls, heights = -np.diff([*recall, 0.0]), np.array([*precision, 1.0])
    np.testing.assert_allclose(found["AUPRC"], (falls * (heights[1:] + heights[:-1]) / 2).sum())


def test_salient_cells_make_the_labels():
    import truths

    random = np.random.default_rng(0)
    hidden = truths.hidden_states(random, 2000, 50)
    assert (hidden.salient.sum(2) == 1).all()
    assert not hidden.salient[:, :, 0].any()
    named = hidden.x[hidden.salient]
    for low in (-2.0, -1.0, 0.0, 1.0):  # labels are as likely as the salient cell says
        near = np.abs(named - low) < 0.05
        assert abs(hidden.labels.ravel()[near].mean() - 1 / (1 + np.exp(-2 * low))) < 0.05
    means = [hidden.x[hidden.salient[:, :, feature]].mean(0) for feature in (1, 2)]
    np.testing.assert_allclose(means, [[0.1, 1.6, 0.5], [-0.1, -0.4, -1.5]], atol=0.05)
    for delay in (0, 2):
        spiked = truths.spikes(random, 200, 50, delay)
        begins = spiked.labels.argmax(1)
        assert spiked.labels.any(1).all()
        np.testing.assert_array_equal(np.argwhere(spiked.salient)[:, 1:], np.stack([begins - delay, 0 * begins], 1))
        before = np.where(np.arange(50) < (begins - delay)[:, None], spiked.x[:, :, 0], -np.inf)
        assert (spiked.x[spiked.salient] - before.max(1)).min() >= 0.5  # 1.5 higher, and the noise has a range of 1


@pytest.mark.parametrize(("rare", "share"), [("features", (20, 5)), ("times", (4, 25))])
def test_regressors_depend_on_their_salient_cells_alone(rare, share):
    import truths

    case = truths.autoregressive(
        rare, np.random.default_rng(0), dataclasses.replace(truths.QUICK, steps=40, features=50)
    )
    x = case.x.requires_grad_()
    slopes = torch.autograd.grad(case.model(x).sum(), x)[0]
    np.testing.assert_array_equal(slopes.numpy() != 0, case.salient)
    cells = case.salient[0]
    assert (cells.any(1).sum(), cells.any(0).sum()) == share
    assert cells.sum() == math.prod(share)


def test_a_peer_that_fails_says_why_and_the_others_go_on(case):
    import processes

    worker = processes.Worker("matrix products alone")
    try:
        other = processes.Case(torch.nn.Flatten(), case.x, case.background, case.groups)
        worker.load(other)
        assert worker.first() is None
        assert worker.failure.reason.startswith("AssertionError")
        worker.load(case)
        assert worker.first() > 0
        worker._process.kill()
        assert worker.first() is None
        assert "died" in worker.failure.reason
    finally:
        worker.close()


def test_the_benchmark_for_a_gpu(tmp_path, capsys, monkeypatch):
    """Its program, on the processor; its figures need the device."""
    import gpu

    figures = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu, "MODELS", {name: (*kind[:3], 5, kind[4]) for name, kind in gpu.MODELS.items()})
    monkeypatch.setattr(
        sys, "argv", ["gpu.py", "--device", "cpu", "--quick", "--repeats", "1", "--output", str(figures)]
    )
    gpu.main()
    rows = json.loads(figures.read_text(encoding="utf-8"))["figures"]
    assert [row["model"] for row in rows] == list(gpu.MODELS)
    assert all(row["gradient"] > 0 and row["deepshap"] > 0 and row["gap"] < 1e-4 for row in rows)
    assert capsys.readouterr().out.count("\n") == len(rows)


def test_standard_errors_are_calibrated_in_small(capsys, tmp_path):
    import calibration

    lines = calibration.main(["--quick", "--picture", str(tmp_path / "dial.png")])
    assert [line.effort for line in lines] == [1, 2, 4]
    assert math.isnan(lines[0].inside)
    assert np.mean([line.inside for line in lines[1:]]) >= 0.85
    assert all(0.5 <= line.size <= 3 for line in lines[1:])
    assert capsys.readouterr().out.count("| LSTM, where the other feature is positive |") == 3
    assert matplotlib.image.imread(tmp_path / "dial.png").std() > 0.05


def test_the_benchmark_of_words():
    """The other half of it needs forecasting libraries, which are not installed here."""
    import forecasters

    methods = forecasters.beside_partition()
    assert all(row["gap"] < 1e-5 and row["seconds"] > 0 for row in methods.values())
    assert methods["deepshap, effort=16"]["distance"] < methods["deepshap"]["distance"] / 2
    assert all(0.01 < methods[name]["distance"] < 1 for name in ("deepshap", "shap.PartitionExplainer"))
