"""The benchmark tables: folds, choice of settings, intervals, own data, and resumed runs."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proportion_ssl.slides import patch_grid, write_features

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "accuracy"
MODULES = [file.stem for file in BENCHMARKS.glob("*.py")]
pytest.importorskip("matplotlib", reason="the tables come with maps: pip install matplotlib")


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    yield
    plt.close("all")
    for name in MODULES:
        sys.modules.pop(name, None)


def test_every_slide_is_tested_once_and_has_one_role():
    from study import synthetic

    study = synthetic(seed=0)
    tested = []
    for fold in study.folds(seed=1, n_folds=5):
        roles = [fold.labeled, fold.bags, fold.test]
        assert [len(part) for part in roles] == [4, 44, 12]
        assert len(np.unique(np.concatenate(roles))) == 60
        assert set(study.labels[study.rows(fold.labeled)]) == set(study.classes)
        tested.extend(fold.test)
    assert sorted(tested) == sorted(np.unique(study.slides))


@pytest.mark.parametrize("regime", ["rounded", "rough", "wrong"])
def test_records_differ_from_the_truth_and_stay_proportions(regime):
    from study import synthetic

    study = synthetic(seed=0)
    slides = np.unique(study.slides)
    exact = study.recorded(slides, "exact", np.random.default_rng(0))
    pd.testing.assert_frame_equal(exact, study.proportions.loc[slides])
    found = study.recorded(slides, regime, np.random.default_rng(0))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    off = (found - exact).abs().to_numpy()
    if regime == "rounded":
        assert 0.005 < off.mean() < off.max() <= 0.1
    elif regime == "rough":
        assert 0.03 < off[exact > 0].mean() < 0.12
        assert (off[exact == 0] == 0).all()
    else:  # a fifth of the slides have the record of another one
        assert (off.max(axis=1) > 0).sum() == 12
        assert sorted(found.to_numpy().tolist()) == sorted(exact.to_numpy().tolist())


def test_cases_of_real_sets_are_on_one_side_only():
    from study import Study

    rng = np.random.default_rng(0)
    bag = np.repeat(np.arange(40), 20)
    slides = np.char.add("bag_", np.char.zfill(bag.astype(str), 2))
    names = np.unique(slides)
    study = Study(
        features=rng.normal(size=(800, 2)),
        labels=rng.choice(["a", "b"], 800),
        slides=slides,
        classes=["a", "b"],
        proportions=pd.DataFrame(0.5, index=names, columns=["a", "b"]),
        cases=pd.Series(np.arange(40) // 4, index=names),
        groups=(2, 3),
    )
    for fold in study.folds(seed=0, n_folds=3):
        cases = [set(study.cases.loc[part]) for part in (fold.labeled, fold.bags, fold.test)]
        assert [len(part) for part in cases] == [2, 5, 3]
        assert len(set.union(*cases)) == 10


@pytest.mark.parametrize("seed", [0, 1])
def test_photographs_of_development_and_evaluation_are_apart(seed):
    from histology_cohort import choose_photographs, compose

    groups = pd.DataFrame(
        [
            (f"{name}/{tile}_{k}.jpeg", name, f"{name}_{tile}")
            for name in ("aca", "scc")
            for tile in range(123)
            for k in range(3)
        ],
        columns=["path", "class", "source_tile"],
    )
    tile_of = groups.set_index("path")["source_tile"]
    used = {}
    for photographs in ("development", "evaluation"):
        half = choose_photographs(groups, photographs)
        paths, _, _ = compose(half, np.random.default_rng(seed), 1)
        used[photographs] = set(tile_of.loc[paths])
        assert 50 <= half.loc[half["class"] == "aca", "source_tile"].nunique() <= 62
    assert not used["development"] & used["evaluation"]


@pytest.fixture
def fold():
    """Labeled patches, bags and the labels of their patches."""
    from study import synthetic

    from proportion_ssl import Bags

    study = synthetic(seed=0)
    roles = next(iter(study.folds(0, 5)))
    train, is_bag = study.rows(roles.labeled), study.rows(roles.bags)
    bags = Bags(
        study.features[is_bag],
        study.slides[is_bag],
        study.proportions.loc[np.sort(roles.bags)],
    )
    return (study.features[train], study.labels[train]), bags, study.labels[is_bag]


def fit(part, *arguments):
    """Without a folder that keeps fits."""
    from protocol import fitted

    return fitted(None, *arguments)


def test_settings_with_the_smallest_error_on_left_out_bags_are_chosen_one_after_the_other(fold):
    import protocol
    from systems import System

    from proportion_ssl import HeadClassifier, NegativePseudoLabelClassifier

    system = System(
        lambda training: NegativePseudoLabelClassifier(
            HeadClassifier(), positive_selector=None, negative_selector=None, **training
        ),
        (
            ({"learning_rate": 1e-9}, {"learning_rate": 0.01}),
            ({"max_epochs": 30}, {"max_epochs": 1}),
        ),
    )
    chosen, errors, _ = protocol.choose(system, {}, *fold, 0, fit)
    # a net that does not learn predicts no proportions
    assert chosen == {"learning_rate": 0.01, "max_epochs": 30}
    assert errors[0][1] < errors[0][0] and errors[1][0] < errors[1][1]
    assert errors[1][0] == errors[0][1]  # the first grid's best, with 30 epochs, as in trials


def test_labels_of_bags_that_choose_the_ceiling_are_not_trained_on(fold):
    import protocol
    from systems import System

    from proportion_ssl import RobustProportionClassifier

    seen = []

    class Spy(RobustProportionClassifier):
        def fit(self, X, y, *arguments, **named):
            seen.append(np.asarray(X))
            return super().fit(X, y)

    labeled, bags, y_bags = fold
    system = System(lambda training: Spy(), (({"doubt": 0.3},),), uses_labels_of_bags=True)
    protocol.choose(system, {}, labeled, bags, y_bags, 0, fit)
    order = np.random.default_rng([0, 4]).permutation(bags.names)
    n_out = round(protocol.LEFT_OUT * len(order))
    kept = np.isin(bags.names[bags.index], order[n_out:])
    np.testing.assert_array_equal(seen[0], np.concatenate([labeled[0], bags.X[kept]]))


@pytest.mark.parametrize("name", ["VAT", "Proposed"])
def test_kept_fits_change_no_row_and_serve_all_records_only_if_these_are_ignored(
    name, short, tmp_path, monkeypatch
):
    import protocol
    from study import Source
    from systems import SYSTEMS

    source = Source("synthetic", None, None, tmp_path)
    tasks = [protocol.Task(source, regime, "fast", 5, 0, 0, name) for regime in ("exact", "wrong")]
    anew = [protocol.run(task) for task in tasks]
    kept = [protocol.run(task, tmp_path) for task in (*tasks, *tasks)]
    for (row, labels), (other, others) in zip([*anew, *anew], kept, strict=True):
        assert {key: value for key, value in row.items() if "seconds" not in key} == {
            key: value for key, value in other.items() if "seconds" not in key
        }
        assert all((labels[kind] == others[kind]).all() for kind in labels)
    n_fits = len(list((tmp_path / "fits").rglob("output.pkl")))
    # two grids of three with the best of the first in the second, and the final fit
    if SYSTEMS[name].uses_records:
        assert n_fits == 12
    else:
        assert 6 <= n_fits <= 9


def test_systems_that_are_said_to_ignore_records_do(fold, short):
    import systems
    from protocol import PROTOCOLS, seeded

    from proportion_ssl import Bags

    (X, y), bags, _ = fold
    exchanged = pd.DataFrame(bags.proportions[::-1], bags.names, np.unique(y))
    others = Bags(bags.X, bags.names[bags.index], exchanged)
    for name, system in systems.SYSTEMS.items():
        if system.uses_records:
            continue
        first, second = (
            seeded(system.make(PROTOCOLS["fast"]), 0, {}).fit(X, y, one).predict_proba(bags.X)
            for one in (bags, others)
        )
        np.testing.assert_array_equal(first, second, err_msg=name)


def test_intervals_and_differences_are_those_of_the_evaluation(tmp_path, monkeypatch):
    import runs
    from protocol import Task
    from study import Source, synthetic

    from proportion_ssl import mean_iou_score
    from proportion_ssl.evaluation import bootstrap_scores, compare_systems, slide_confusions

    source = Source("synthetic", None, None, tmp_path)
    tasks = [
        Task(source, "exact", "fast", 5, 0, fold, name)
        for fold in range(2)
        for name in ("Supervised", "Proposed")
    ]
    study, rng = synthetic(seed=0), np.random.default_rng(0)
    (tmp_path / "predictions").mkdir()
    truth, predicted, slides = [], {"Supervised": [], "Proposed": []}, []
    for task in tasks:
        roles = list(study.folds(0, 5))[task.fold]
        is_test = study.rows(roles.test)
        y = study.labels[is_test]
        wrong = rng.random(len(y)) < (0.3 if task.system == "Supervised" else 0.2)
        labels = np.where(wrong, rng.permutation(y), y)
        np.savez(runs.predictions_file(tmp_path, runs.key_of(task)), alone=labels)
        predicted[task.system].append(labels)
        if task.system == "Supervised":
            truth.append(y)
            slides.append(study.slides[is_test])
    table = pd.DataFrame(
        {
            "system": [task.system for task in tasks],
            "fell back": False,
            "steps": [10, 20, 30, 40],
            "seconds of fit": 1.0,
            "seconds of choice": 2.0,
        }
    )
    found = runs.summarize(tasks, tmp_path, table)
    y, where = np.concatenate(truth), np.concatenate(slides)
    matrices = {
        name: slide_confusions(y, np.concatenate(parts), where, study.classes)[0]
        for name, parts in predicted.items()
    }
    for name, parts in predicted.items():
        row = found.loc[name]
        interval = bootstrap_scores(matrices[name])
        assert row["mIoU"] == pytest.approx(mean_iou_score(y, np.concatenate(parts)))
        assert row[["low", "high"]].tolist() == pytest.approx(interval[1:3], abs=0.01)
        each = [mean_iou_score(*pair) for pair in zip(truth, parts, strict=True)]
        assert row["sd of runs"] == pytest.approx(np.std(each, ddof=1))
    compared = compare_systems(matrices, reference="Proposed").iloc[0]
    row = found.loc["Supervised"]
    assert row["to Proposed"] == pytest.approx(compared["difference"])
    assert row["p"] == pytest.approx(compared["p"], abs=0.01)
    assert row["steps"] == 20 and row["slides"] == row["cases"] == 24
    assert np.isnan(found.loc["Proposed", "to Proposed"])


@pytest.fixture
def short(monkeypatch):
    """Two epochs instead of a hundred."""
    import protocol

    monkeypatch.setitem(protocol.PROTOCOLS, "fast", {"max_epochs": 2})
    monkeypatch.setattr(protocol, "TRIAL_EPOCHS", 1)


@pytest.mark.slow
def test_one_command_writes_all_and_goes_on_where_it_stopped(short, tmp_path, monkeypatch, capsys):
    import paper_tables
    import runs

    command = ["--set", "synthetic", "--folds", "2", "--n-jobs", "1", "--output", str(tmp_path)]
    systems = ["Supervised", "VAT", "Adaptive", "Proposed", "Proportion loss", "Ceiling"]
    paper_tables.main([*command, "--systems", *systems[:3]])
    first = pd.read_csv(tmp_path / "runs.csv")
    assert len(first) == 6
    fitted = []
    monkeypatch.setattr(
        runs, "run", lambda task, *folder, run=runs.run: fitted.append(task.system) or run(task)
    )
    paper_tables.main([*command, "--systems", *systems])
    assert sorted(fitted) == sorted(systems[3:] * 2)  # the others were read
    table = pd.read_csv(tmp_path / "runs.csv")
    pd.testing.assert_frame_equal(table[: len(first)], first)
    assert (table["steps"] > 0).all()

    table = (tmp_path / "table1.md").read_text()
    assert "| Supervised |" in table and ".373" in table and "ICT" not in table
    assert "| Adaptive |" in (tmp_path / "table2.md").read_text()
    assert "| Ceiling |" in (tmp_path / "table3.md").read_text()
    summary = pd.read_csv(tmp_path / "table.csv", index_col="system")
    assert summary[["OP", "PC", "mIoU"]].stack().between(0, 1).all()
    assert (summary["low"] < summary["mIoU"]).all() and (summary["mIoU"] < summary["high"]).all()
    decay, own = json.loads((tmp_path / "grid.json").read_text())["VAT"]
    assert decay.count("weight_decay") == own.count("epsilon") == 3
    assert len(list(tmp_path.glob("map_*.png"))) == 3
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(printed["mIoU"]) == set(systems)
    # another cohort in the same folder neither reads nor replaces these
    paper_tables.main([*command, "--systems", "Supervised", "--cohort-seed", "1"])
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 14


@pytest.mark.slow
def test_tables_of_the_documentation_are_written_from_complete_runs(
    short, tmp_path, monkeypatch, capsys
):
    import all_tables

    names = ("Supervised", "Proposed", "MixBag", "Mean map", "Ceiling")
    exact = all_tables.Part("some", "synthetic", "exact", 1, 2, names)
    monkeypatch.setattr(all_tables, "PARTS", (exact,))
    command = ["--data", "none", "--output", str(tmp_path / "runs"), "--docs", str(tmp_path / "d")]
    with pytest.raises(SystemExit, match="nothing was written"):
        all_tables.main([*command, "--only-write"])
    all_tables.main([*command, "--n-jobs", "1"])
    monkeypatch.setattr(all_tables, "PARTS", (exact, exact._replace(regime="rough")))
    all_tables.main([*command, "--only-write"])
    assert "left out: some, synthetic, rough" in capsys.readouterr().out
    results = pd.read_csv(tmp_path / "d" / "results.csv")
    assert len(results) == 5 and set(results["regime"]) == {"exact"}
    assert (tmp_path / "d" / "some-synthetic.png").exists()
    # the runs that are kept with the code say the same, without a fit
    import stored

    stored.store(tmp_path / "runs", tmp_path / "stored")
    again = ["--data", "none", "--output", str(tmp_path / "again"), "--docs", str(tmp_path / "e")]
    with pytest.raises(SystemExit, match="nothing was written"):
        all_tables.main([*again, "--only-write"])
    all_tables.main([*again, "--only-write", "--resume", str(tmp_path / "stored")])
    for file in (tmp_path / "d").glob("*.csv"):
        assert file.read_text() == (tmp_path / "e" / file.name).read_text()
    best = pd.read_csv(tmp_path / "d" / "best.csv")
    assert "Ceiling" not in best.to_string() and "of 4" in best.loc[0, "Proposed"]


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
    import paper_tables
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

    command = ["--set", str(own_data / "cohort.csv"), "--features", str(own_data / "features")]
    command += ["--n-folds", "2", "--n-jobs", "1", "--output", str(own_data / "out")]
    paper_tables.main([*command, "--systems", "Supervised", "Proposed"])
    assert len(pd.read_csv(own_data / "out" / "runs.csv")) == 4


def test_manifest_without_features_is_refused(own_data):
    from study import Source, load_study

    with pytest.raises(SystemExit, match="--features"):
        load_study(Source(str(own_data / "cohort.csv"), None, None, own_data))


def test_tables_of_the_page_on_rules_from_few_runs():
    from rules_tables import calibration_of, falling_back_of, large_bags_of

    runs = pd.DataFrame(
        [
            ("lc25000", "preset", kind, gain, fell)
            for kind, gain, fell in (
                ("exact", 0.1, False),
                ("exact", 0.2, True),
                ("rough", -0.0125, False),
            )
        ],
        columns=["set", "rule", "records", "gain", "fell back"],
    )
    assert falling_back_of(runs).to_dict("records") == [
        {
            "set": "LC25000",
            "rule": "RobustProportionClassifier",
            "exact": "1: +.150, +.100",
            "rough": "0: -.013, -.013",
        }
    ]

    sizes = pd.DataFrame(
        [
            ("chula_rbc", "net, labeled alone", 0, 0.5, 1.0, 0.8, False),
            ("chula_rbc", "published, net", 0, 0.5, 2.0, 0.8, False),
            ("chula_rbc", "published, net", 1000, 0.25, 3.0, 0.9, True),
        ],
        columns=["set", "system", "size", "mIoU", "seconds", "GB", "fell_back"],
    )
    slope = pd.Series({("chula_rbc", "published, net"): 0.125})
    alone, net = large_bags_of(sizes, slope).fillna("").to_dict("records")
    assert alone["as it is"] == ".500"
    assert alone["1,000"] == alone["seconds"] == ""
    assert net["1,000"] == r".250 \*"
    assert (net["seconds"], net["per 1,000"], net["GB"]) == ("3", "0.12", "0.9")

    errors = pd.DataFrame({"her2st_expression": [0.1234]}, index=["left-out bags"])
    assert calibration_of(errors).to_csv(index=False) == "temperature,HER2ST\nleft-out bags,.123\n"
