"""The tables of the paper: folds, choice of settings, own data, and a run that goes on where it stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proportion_ssl.slides import patch_grid, write_features

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "accuracy"
pytest.importorskip("matplotlib", reason="the tables come with maps: pip install matplotlib")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield
    plt.close("all")
    for name in ("paper_tables", "study", "systems", "histology_cohort"):
        sys.modules.pop(name, None)


def test_every_slide_is_tested_once_and_has_one_role():
    from study import synthetic

    study = synthetic(regime="exact", seed=0)
    tested = []
    for fold in study.folds(seed=1, n_folds=5):
        roles = [fold.labeled, fold.bags, fold.test]
        assert [len(part) for part in roles] == [4, 44, 12]
        assert len(np.unique(np.concatenate(roles))) == 60
        assert set(study.labels[study.rows(fold.labeled)]) == set(study.classes)
        tested.extend(fold.test)
    assert sorted(tested) == sorted(np.unique(study.slides))


def test_rough_proportions_differ_and_stay_proportions():
    from study import synthetic

    exact = synthetic(regime="exact", seed=0).proportions
    rough = synthetic(regime="rough", seed=0).proportions
    np.testing.assert_allclose(rough.sum(axis=1), 1.0)
    off = (rough - exact).abs().to_numpy()
    assert 0.03 < off[exact > 0].mean() < 0.12
    assert (off[exact == 0] == 0).all()


def test_differences_are_paired_by_fold():
    from paper_tables import summarise

    runs = pd.DataFrame(
        {
            "seed": 0,
            "fold": [0, 1, 2] * 2,
            "system": ["Supervised"] * 3 + ["Proposed"] * 3,
            "OP": 0.5,
            "PC": 0.5,
            "mIoU": [0.1, 0.5, 0.9, 0.2, 0.7, 1.0],
            "seconds of fit": 1.0,
            "seconds of choice": 2.0,
        }
    )
    summary = summarise(runs, ["Supervised", "Proposed"])
    assert summary.loc["Supervised", "mIoU to Proposed"] == pytest.approx(-0.4 / 3)
    assert summary.loc["Supervised", "standard error"] == pytest.approx(0.1 / 3)
    # t = -4 with two degrees of freedom
    assert summary.loc["Supervised", "p"] == pytest.approx(0.0572, abs=1e-4)
    assert summary.loc["Supervised", "p corrected"] == summary.loc["Supervised", "p"]
    assert summary.loc["Supervised", "mIoU sd"] == pytest.approx(0.4)
    assert summary.loc["Supervised", "seconds with choice"] == 3.0


def test_setting_with_the_smallest_error_on_left_out_bags_is_chosen():
    import paper_tables
    from study import synthetic
    from systems import System

    from proportion_ssl import Bags, HeadClassifier, NegativePseudoLabelClassifier

    study = synthetic(regime="exact", seed=0)
    fold = next(iter(study.folds(0, 5)))
    train, is_bag = study.rows(fold.labeled), study.rows(fold.bags)
    bags = Bags(
        study.features[is_bag],
        study.slides[is_bag],
        study.proportions.loc[np.sort(fold.bags)],
    )
    system = System(
        lambda training: NegativePseudoLabelClassifier(
            HeadClassifier(), positive_selector=None, negative_selector=None, **training
        ),
        ({"learning_rate": 1e-9}, {"learning_rate": 0.01}),
    )
    labeled = (study.features[train], study.labels[train])
    chosen, errors = paper_tables.choose(system, {}, labeled, bags, 0)
    assert chosen == 1  # a net that does not learn predicts no proportions
    assert errors[1] < errors[0]


@pytest.fixture
def short(monkeypatch):
    """Two epochs instead of a hundred."""
    import paper_tables

    monkeypatch.setitem(paper_tables.PROTOCOLS, "fast", {"max_epochs": 2})
    monkeypatch.setattr(paper_tables, "TRIAL_EPOCHS", 1)
    return paper_tables


@pytest.mark.slow
def test_one_command_writes_all_and_goes_on_where_it_stopped(short, tmp_path, monkeypatch, capsys):
    command = ["--data", "synthetic", "--folds", "2", "--n-jobs", "1", "--output", str(tmp_path)]
    systems = ["Supervised", "VAT", "Adaptive", "Proposed", "Proportion loss", "Ceiling"]
    short.main([*command, "--systems", *systems[:3]])
    folder = tmp_path / "fast_exact"
    first = pd.read_csv(folder / "runs.csv")
    assert len(first) == 6
    fitted = []
    monkeypatch.setattr(
        short, "run", lambda *key, run=short.run: fitted.append(key[4]) or run(*key)
    )
    short.main([*command, "--systems", *systems])
    assert sorted(fitted) == sorted(systems[3:] * 2)  # the others were read
    runs = pd.read_csv(folder / "runs.csv")
    pd.testing.assert_frame_equal(runs[: len(first)], first)
    assert runs[["OP", "PC", "mIoU"]].stack().between(0, 1).all()

    table = (folder / "table1.md").read_text()
    assert "| Supervised |" in table and "0.373" in table and "ICT" not in table
    assert "| Adaptive |" in (folder / "table2.md").read_text()
    assert "| Ceiling |" in (folder / "table3.md").read_text()
    assert json.loads((folder / "grid.json").read_text())["VAT"] == [
        "{'epsilon': 1.0}",
        "{'epsilon': 3.0}",
        "{'epsilon': 10.0}",
    ]
    assert len(list(folder.glob("map_*.png"))) == 3
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(summary["mIoU"]) == set(systems)
    with pytest.raises(SystemExit, match="give another --output"):
        short.main([*command, "--systems", "Supervised", "--cohort-seed", "1"])


@pytest.fixture
def own_data(tmp_path):
    """A manifest of six outlined slides and four bags, with a feature file of each."""
    grid = patch_grid((448 * 6, 448 * 4), mpp=0.5, magnification=10)  # 24 patches of 448 pixels
    rng = np.random.default_rng(0)
    lines = ["slide,annotation,role,acinar,solid"]
    (tmp_path / "features").mkdir()
    for number in range(10):
        name, n_left = f"s{number}", int(rng.integers(1, 6))  # so many columns are acinar
        labels = (grid.cells[:, 1] >= n_left).astype(int)
        features = rng.normal(0, 0.3, (24, 5)) + labels[:, np.newaxis]
        (tmp_path / f"{name}.svs").touch()
        write_features(
            tmp_path / "features" / f"{name}.h5",
            *(features, grid),
            name=name,
            dimensions=(448 * 6, 448 * 4),
            mpp=0.5,
            settings={},
        )
        if number >= 6:
            share = 100 * n_left / 6
            lines.append(f"{name}.svs,,bag,{share:.1f},{100 - share:.1f}")
            continue
        regions = [
            {
                "type": "Feature",
                "properties": {"classification": {"name": label}},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [[[x, 0], [x2, 0], [x2, 1792], [x, 1792], [x, 0]]],
                },
            }
            for label, x, x2 in (("acinar", 0, 448 * n_left), ("solid", 448 * n_left, 2688))
        ]
        collection = {"type": "FeatureCollection", "features": regions}
        (tmp_path / f"{name}.geojson").write_text(json.dumps(collection))
        lines.append(f"{name}.svs,{name}.geojson,{'labeled' if number < 4 else 'test'},,")
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.slow
def test_own_slides_are_read_from_manifest_and_feature_files(short, own_data):
    from study import own_slides

    study = own_slides(own_data / "cohort.csv", own_data / "features")
    assert study.classes == ["acinar", "solid"]
    outlined = study.rows(study.roles.labeled)
    assert outlined.sum() == 6 * 24 and (study.labels[outlined] != "").all()
    assert (study.labels[~outlined] == "").all()
    # the features were made of the labels: the outlines have found them
    low = study.features[outlined].mean(axis=1) < 0.5
    np.testing.assert_array_equal(study.labels[outlined] == "acinar", low)
    folds = list(study.folds(0, 3))
    assert sorted(np.concatenate([fold.test for fold in folds])) == sorted(study.roles.labeled)
    assert all(set(fold.bags) == {"s6", "s7", "s8", "s9"} for fold in folds)

    command = ["--data", str(own_data / "cohort.csv"), "--features", str(own_data / "features")]
    command += ["--n-folds", "2", "--n-jobs", "1", "--output", str(own_data / "out")]
    short.main([*command, "--systems", "Supervised", "Proposed"])
    assert len(pd.read_csv(own_data / "out" / "fast_exact" / "runs.csv")) == 4


def test_manifest_without_features_is_refused(own_data):
    from study import load_study

    with pytest.raises(SystemExit, match="--features"):
        load_study(str(own_data / "cohort.csv"), None, "", "exact", 0)
