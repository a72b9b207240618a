"""The report's page, read as text and parsed: contents, escaping, order, size, messages."""

import base64
import hashlib
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from proportion_ssl import NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import sum_absolute_error
from proportion_ssl.reporting._pictures import MAX_BYTES, MAX_SIDE, label_map_uri, thumbnail_uri
from proportion_ssl.reporting._report import ReportSlide, report
from proportion_ssl.reporting._rounds import draw_counts, draw_lines, read_history
from proportion_ssl.reporting._scores import figure, score_table

CLASSES = ["lepidic", "acinar", "solid", "non-cancer"]
HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements of a page as (tag, attributes, text inside), in the order in which they begin."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self._open = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self._open, f"never closed: {[e[0] for e in self._open]}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"attribute twice: {tag} {names}"
        element = [tag, dict(attributes), ""]
        self.elements.append(element)
        if tag in ("td", "th"):
            self.handle_data(" ")
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self._open.append(element)

    def handle_startendtag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> inside <{self._open[-1][0]}>"
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def find(self, tag, **attributes):
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [e for e in self.elements if e[0] == tag and wanted.items() <= e[1].items()]

    def text_of(self, element_id):
        (element,) = [e for e in self.elements if e[1].get("id") == element_id]
        return " ".join(element[2].split())


def make_thumbnail(height=60, width=80):
    return np.full((height, width, 3), 230, dtype=np.uint8)


def make_slide(name="slide 1", **changes):
    given = {
        "thumbnail": make_thumbnail(),
        "prediction": [[0, 1, -1], [1, 3, 2]],
        "truth": [[0, 0, -1], [1, 3, -1]],
        "recorded": {"lepidic": 0.5, "acinar": 0.5, "solid": 0.0},
        "predicted": {"lepidic": 0.25, "acinar": 0.5, "solid": 0.25},
    }
    return ReportSlide(name, **{**given, **changes})


@pytest.fixture
def write(tmp_path):
    def write(slides=(), **settings):
        path = tmp_path / "run.html"
        written = report(path, slides=slides, **{"classes": CLASSES, **settings})
        assert written == path
        return Page(path)

    return write


def decode(uri):
    head, encoded = uri.split(",", 1)
    return head, Image.open(io.BytesIO(base64.b64decode(encoded)))


# --- contents -----------------------------------------------------------------------------------


def test_page_shows_everything_that_is_given(write):
    page = write(
        [make_slide(metrics={"mIoU": 0.5}, mpp=8.0)],
        metrics={"mIoU": [0.61, 0.65, 0.63]},
        history=[
            {"round": 0, "n_epochs": 4, "train_loss": 0.5, "valid_loss": 0.6},
            {
                "round": 1,
                "n_epochs": 1,
                "sum_absolute_error": 0.4,
                "n_positive": [3, 0],
                "n_negative": [1, 2],
            },
        ],
        history_classes=["acinar", "solid"],
        settings={"max_epochs": 7, "estimator": None},
        title="Run of Tuesday",
    )
    assert page.text_of("h-scores") == "Scores" and "0.630 ± 0.020" in page.text_of("scores")
    assert "slide 1" in page.text_of("overview")
    assert "50.0" in page.text_of("s0") and "25.0" in page.text_of("s0")
    assert "max_epochs 7" in page.text_of("settings") and "estimator None" in page.text_of(
        "settings"
    )
    assert f"numpy {np.__version__}" in page.text_of("versions")
    assert "Run of Tuesday" in page.find("title")[0][2]
    assert page.find("div", class_="frame")[0][1]["data-microns"] == "640.0"
    headings = [e[2] for e in page.find("button", class_="sort")]
    assert headings[-4:] == ["+ acinar", "+ solid", "− acinar", "− solid"]


def test_page_leaves_out_what_is_not_given(write):
    page = write()
    ids = {e[1].get("id") for e in page.elements}
    assert "versions" in ids and not ids & {"scores", "overview", "slides", "rounds", "settings"}


def test_slide_without_truth_or_proportions(write):
    page = write([make_slide(truth=None, recorded=None, predicted=None)])
    assert not page.find("input", value="truth") and not page.find("table", class_="shares")
    assert len(page.find("img")) == 2 and "–" in page.text_of("slide-table")


def test_only_predicted_proportions_are_shown_alone(write):
    page = write([make_slide(recorded=None)])
    headings = [e[2] for e in page.find("th", scope="col")]
    assert "predicted" in headings and "recorded" not in headings
    assert "–" in page.text_of("slide-table"), "no doubt without recorded proportions"


def test_arrays_and_mappings_of_proportions_mean_the_same(write):
    shares = {"lepidic": 0.5, "acinar": 0.3, "solid": 0.2, "non-cancer": 0.0}
    as_mapping = write([make_slide(recorded=shares)]).text_of("s0")
    assert write([make_slide(recorded=list(shares.values()))]).text_of("s0") == as_mapping
    assert write([make_slide(recorded=pd.Series(shares)[::-1])]).text_of("s0") == as_mapping


def test_legend_counts_patches_of_both_maps(write):
    text = write([make_slide()]).text_of("s0")
    assert "lepidic 1 predicted, 2 true" in text
    assert "solid 1 predicted, 0 true" in text


@pytest.mark.filterwarnings("ignore:The pseudo labels are harmful")  # after so few epochs
def test_fitted_classifier_goes_in_as_it_is(write):
    data = make_bags(n_bags=6, random_state=0)
    model = NegativePseudoLabelClassifier(max_epochs=4, random_state=0)
    model.fit(data.X_labeled, data.y, data.bags)
    names = [str(name) for name in model.classes_]
    page = write(
        classes=names[::-1],
        history=model.history_,
        history_classes=names,
        settings=model.get_params(),
    )
    assert len(page.find("tr")) > len(model.history_)
    # classes stand in the order of the report, not in that of the classifier
    headings = [e[2] for e in page.find("button", class_="sort") if e[2].startswith("+")]
    assert headings == [f"+ {name}" for name in names[::-1]]
    cells = [e[1].get("data-value") for e in page.find("td", class_="number")]
    last = model.history_[-1]
    counts = [*last["n_positive"][::-1], *last["n_negative"][::-1]]
    assert cells[-len(counts) :] == [str(count) for count in counts]


# --- doubtful slides first ----------------------------------------------------------------------


def names_in_order(page):
    return [e[2].strip() for e in page.find("h3")]


def shifted(name, error):
    half = error / 2
    return make_slide(
        name,
        recorded={"lepidic": 1.0, "acinar": 0.0},
        predicted={"lepidic": 1 - half, "acinar": half},
    )


def test_slides_are_ordered_by_error_of_proportions(write):
    slides = [
        shifted("good", 0.1),
        make_slide("unknown", recorded=None),
        shifted("worst", 1.8),
        shifted("bad", 1.2),
        shifted("fair", 0.4),
    ]
    page = write(slides)
    assert names_in_order(page) == ["worst", "bad", "fair", "good", "unknown"]
    shown = [float(v) for v in page_values(page)[:4]]
    expected = sum_absolute_error([[1, 0]] * 4, [[1 - e / 2, e / 2] for e in (1.8, 1.2, 0.4, 0.1)])
    assert shown == pytest.approx(expected)


def page_values(page):
    return [e[1]["data-value"] for e in page.find("td", class_="number") if "data-value" in e[1]]


def test_given_doubt_counts_instead(write):
    slides = [
        make_slide(name, doubt=doubt) for name, doubt in (("a", 0.0), ("b", 2.5), ("c", -1.0))
    ]
    page = write(slides)
    assert names_in_order(page) == ["b", "a", "c"]
    assert "sum absolute error" in [e[2] for e in page.find("button", class_="sort")]


def test_equal_doubt_keeps_the_given_order(write):
    assert names_in_order(write([make_slide(n) for n in "badc"])) == list("badc")


# --- scores -------------------------------------------------------------------------------------


def test_scores_are_mean_and_sample_deviation():
    values = [0.2, 0.5, 0.8]
    ((_, (score,)),) = score_table({"mIoU": values}).rows
    assert (score.mean, score.spread) == pytest.approx((0.5, 0.3))
    assert score.dots == pytest.approx([20, 50, 80]) and score.axis == (0, 1)
    assert str(score) == "0.500 ± 0.300"


def test_scores_by_system_keep_the_order_of_the_table():
    table = pd.DataFrame(
        {"system": ["b", "a", "b"], "OP": [0.2, 0.9, 0.4], "time": [10.0, 20.0, 40.0]}
    )
    scores = score_table(table)
    assert [name for name, _ in scores.rows] == ["b", "a"] and scores.names == ("OP", "time")
    b, a = (row for _, row in scores.rows)
    assert str(b[0]) == "0.300 ± 0.141" and str(a[0]) == "0.900" and math.isnan(a[0].spread)
    assert b[1].axis == a[1].axis == (10, 40), "one axis for all systems"
    assert b[1].dots == pytest.approx([0, 100]) and a[1].dots == pytest.approx([33.33])
    assert "system" in table, "the table given is left as it is"


def test_undefined_scores_are_left_out_of_the_mean():
    ((_, (score, none)),) = score_table({"OP": [0.2, np.nan, 0.4], "PC": [np.nan] * 3}).rows
    assert str(score) == "0.300 ± 0.141" and len(score.values) == 2
    assert str(none) == "–" and none.dots == ()


def test_score_of_slides_may_be_called_system(write):
    assert "0.250 ± 0.071" in write(
        [make_slide(str(i), metrics={"system": v}) for i, v in enumerate((0.2, 0.3))]
    ).text_of("scores")


def test_single_number_has_no_spread():
    ((_, (score,)),) = score_table({"OP": 0.25}).rows
    assert str(score) == "0.250"


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (99.5, "99.500"), (1234.56, "1235"), (-0.5, "-0.500")]
)
def test_figure(value, text):
    assert figure(value) == text


# --- rounds -------------------------------------------------------------------------------------


def history_of(*counts):
    return [{"round": i + 1, "n_positive": p, "n_negative": n} for i, (p, n) in enumerate(counts)]


def test_bars_of_counts_are_stacked_in_scale():
    rounds = read_history(history_of(([3, 1], [0, 2]), ([6, 2], [1, 1])), n_classes=2)
    drawing = draw_counts(rounds, codes=[4, 0])
    assert (drawing.most_positive, drawing.most_negative, drawing.zero) == (8, 2, 80)
    assert [tuple(bar) for bar in drawing.bars] == [
        (0, 50, 30, 4, False),
        (0, 40, 10, 0, False),
        (0, 80, 20, 0, True),
        (1, 20, 60, 4, False),
        (1, 0, 20, 0, False),
        (1, 80, 10, 4, True),
        (1, 90, 10, 0, True),
    ]


def test_no_bars_without_labels():
    assert draw_counts(read_history(history_of(([0, 0], [0, 0])), 2), [0, 1]) is None
    assert draw_counts(read_history([{"round": 0}], 0), []) is None


def test_curves_break_off_where_a_value_is_missing():
    losses = [1.0, 0.5, None, 0.25, float("nan")]
    rounds = read_history([{"round": i, "train_loss": v} for i, v in enumerate(losses)], 0)
    drawing = draw_lines(rounds, ["train_loss", "valid_loss"])
    assert drawing.curves == (("train_loss", "M0.5 0.00h0L1.5 50.00h0M3.5 75.00h0"),)
    assert drawing.most == 1.0
    assert draw_lines(rounds, ["valid_loss"]) is None


def test_classes_of_a_round_can_be_put_in_order():
    (entry,) = read_history(history_of(([1, 2, 3], [4, 5, 6])), 3)
    moved = entry.in_order([2, 0, 1])
    assert (moved.n_positive, moved.n_negative) == ((3, 1, 2), (6, 4, 5))


# --- pictures -----------------------------------------------------------------------------------


def test_label_map_keeps_classes_and_transparency():
    colors = [(255, 0, 0), (0, 0, 255)]
    head, picture = decode(label_map_uri(np.array([[0, -1, 1], [1, 1, 0]]), colors))
    assert head == "data:image/png;base64" and picture.mode == "P" and picture.size == (3, 2)
    red, blue = (255, 0, 0, 255), (0, 0, 255, 255)
    pixels = np.asarray(picture.convert("RGBA"))
    assert (pixels[0, 0] == red).all() and pixels[0, 1, 3] == 0 and (pixels[0, 2] == blue).all()
    assert (pixels[1] == [blue, blue, red]).all()


def test_label_map_holds_as_many_classes_as_allowed():
    colors = [(i, 255 - i, 7) for i in range(255)]
    codes = np.arange(-1, 255).reshape(16, 16)
    pixels = np.asarray(decode(label_map_uri(codes, colors))[1].convert("RGBA")).reshape(-1, 4)
    assert pixels[0, 3] == 0 and (pixels[1:, :3] == colors).all() and (pixels[1:, 3] == 255).all()


def test_thumbnail_is_reduced_to_its_limits():
    noise = np.random.default_rng(0).integers(0, 256, (900, 2000, 3), dtype=np.uint8)
    uri = thumbnail_uri(noise)
    head, picture = decode(uri)
    assert head == "data:image/jpeg;base64" and len(uri) <= 4 * MAX_BYTES / 3 + 40
    assert picture.width / picture.height == pytest.approx(2000 / 900, rel=0.01)
    assert decode(thumbnail_uri(make_thumbnail(40, 4000)))[1].size == (MAX_SIDE, 16)
    assert decode(thumbnail_uri(make_thumbnail(3, 2)))[1].size == (2, 3)


@pytest.mark.slow
def test_page_of_40_noisy_slides_stays_below_15_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    codes = np.random.default_rng(1).integers(-1, 4, (80, 80))
    slides = [
        make_slide(
            f"slide {i}", thumbnail=np.roll(noise, i, axis=0), prediction=codes, truth=codes.T
        )
        for i in range(40)
    ]
    path = report(tmp_path / "run.html", slides=slides, classes=CLASSES)
    assert 40 * 100_000 < path.stat().st_size < 15e6


def test_maps_cover_their_part_of_the_thumbnail(write):
    page = write([make_slide(cell_pixels=20.0), make_slide("other")])
    assert "#s0 .map{width:75.0000%;height:66.6667%}" in page.source  # 3 * 20 of 80, 2 * 20 of 60
    assert "#s1 .map{width:100.0000%;height:100.0000%}" in page.source


# --- safety -------------------------------------------------------------------------------------

NAMES = [
    HOSTILE,
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title></textarea><!--",
    "{{ 7 * 7 }} {% raw %}",
    "&lt;b&gt; &amp;",
    "\u202egnp.exe \udc80 \x00",
]


def write_named(write, name):
    return write(
        [
            make_slide(
                name,
                recorded=[1, 0, 0, 0],
                predicted=[0, 1, 0, 0],
                truth=[[0, 0, 0], [0, 1, 2]],
                metrics={name: 0.5},
            )
        ],
        classes=[name, "b", "c", "d"],
        metrics=pd.DataFrame({"system": [name, "other"], f"{name} 2": [0.1, 0.2]}),
        history=[{"round": name, "n_positive": [1, 2], "n_negative": [0, 1]}] * 2,
        history_classes=["b", name],
        settings={name: name},
        title=name,
    )


@pytest.mark.parametrize("name", NAMES)
def test_names_are_text_wherever_they_stand(write, name):
    plain, hostile = write_named(write, "plain"), write_named(write, name)
    # as many elements with the same attributes as with a harmless name: nothing was let in
    assert [(e[0], sorted(e[1])) for e in hostile.elements] == [
        (e[0], sorted(e[1])) for e in plain.elements
    ]
    shown = name.replace("\udc80", "\\udc80")
    for element_id in ("slides", "overview", "scores", "rounds"):
        assert " ".join(shown.split()) in hostile.text_of(element_id)
    assert hostile.find("title")[0][2] == shown
    assert len(hostile.find("script")) == 1


def test_setting_is_shown_as_python_writes_it(write):
    page = write(settings={"a": HOSTILE, "long": "x" * 5000, "array": np.arange(3)})
    text = page.text_of("settings")
    assert f"a {HOSTILE!r}" in text and "array([0, 1, 2])" in text
    assert "x" * 1900 in text and "x" * 2100 not in text


def test_policy_allows_the_pages_own_style_and_script_only(write):
    page = write([make_slide()])
    (policy,) = [e[1]["content"] for e in page.find("meta", http_equiv="Content-Security-Policy")]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert (
        directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"
    )
    assert directives["img-src"] == "data:"
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (found,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        assert directives[f"{tag}-src"] == f"'sha256-{digest}'"
    first = [e[0] for e in page.elements]
    assert first.index("meta") < first.index("style"), "the policy stands before what it rules"


def test_page_refers_to_nothing_outside(write):
    page = write([make_slide()], metrics={"OP": [0.1, 0.2]})
    for tag, attributes, _ in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href", "action", "data", "poster", "srcset"):
                assert value.startswith(("data:", "#")), (tag, name, value[:40])
            assert not name.startswith("on") and name != "style"
    (style,) = page.find("style")
    assert "url(" not in style[2] and "@import" not in style[2]
    assert not re.search(r"https?:", page.source)


def test_ids_are_unique_and_links_lead_somewhere(write):
    page = write([make_slide("a"), make_slide("b")], metrics={"OP": 0.5}, settings={"a": 1})
    ids = [e[1]["id"] for e in page.elements if "id" in e[1]]
    assert len(ids) == len(set(ids))
    targets = [e[1]["href"][1:] for e in page.find("a")]
    targets += [
        e[1][key] for e in page.elements for key in ("for", "aria-labelledby") if key in e[1]
    ]
    assert set(targets) <= set(ids)


def test_every_control_and_picture_has_a_name(write):
    page = write([make_slide(mpp=1.0)])
    labeled = {e[1]["for"] for e in page.find("label") if "for" in e[1]}
    for element in page.find("input"):
        assert element[1].get("id") in labeled or element[1]["type"] == "range"
    assert all(e[2].strip() for e in page.find("button"))
    assert all(e[1].get("alt") for e in page.find("img"))
    for svg in page.find("svg"):
        assert svg[1].get("aria-hidden") == "true" or svg[1].get("aria-label")


# --- messages -----------------------------------------------------------------------------------


def test_rounded_record_is_shown_with_its_interval_and_judged_by_it(write):
    record = {
        "recorded": {"lepidic": 0.3, "acinar": 0.3, "solid": 0.3},
        "lower": {"lepidic": 0.25, "acinar": 0.25, "solid": 0.25},
        "upper": {"lepidic": 0.35, "acinar": 0.35, "solid": 0.35},
    }
    page = write([make_slide(predicted={"lepidic": 0.35, "acinar": 0.35, "solid": 0.3}, **record)])
    assert "30.0 25.0–35.0" in page.text_of("s0")
    assert "0.000" in page.text_of("slide-table")
    page = write([make_slide(predicted={"lepidic": 0.5, "acinar": 0.25, "solid": 0.25}, **record)])
    assert "0.150" in page.text_of("slide-table")


def test_record_that_sums_to_more_than_1_fills_its_bar(write):
    ends = {"lower": [0.15] * 4, "upper": [0.35] * 4}
    page = write([make_slide(recorded=[0.3, 0.3, 0.3, 0.2], predicted=[1, 0, 0, 0], **ends)])
    bars = [e[1] for e in page.find("rect", height="10") if "class" in e[1]]
    assert [bar["class"] for bar in bars] == ["c0", "c1", "c2", "c3", "c0"]
    ends = [float(bar["x"]) + float(bar["width"]) for bar in bars]
    np.testing.assert_allclose(ends, [300 / 11, 600 / 11, 900 / 11, 100, 100], atol=0.02)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lower": [0.2, 0.2, 0, 0]}, "recorded, lower and upper belong together"),
        ({"recorded": None, "lower": [0] * 4, "upper": [1] * 4}, "belong together"),
        (
            {"lower": [0.6, 0, 0, 0], "upper": [0.7, 1, 0, 0]},
            "'slide 1' has a recorded share outside",
        ),
    ],
)
def test_interval_that_does_not_fit_is_refused(write, changes, match):
    with pytest.raises(ValueError, match=match):
        write([make_slide(**changes)])


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        (
            {"thumbnail": np.zeros((4, 4), np.uint8)},
            ValueError,
            r"'slide 1': thumbnail .* shape \(4, 4\)",
        ),
        ({"thumbnail": np.zeros((4, 4, 3))}, ValueError, "type float64"),
        ({"thumbnail": np.zeros((0, 4, 3), np.uint8)}, ValueError, r"shape \(0, 4, 3\)"),
        (
            {"prediction": [0, 1]},
            ValueError,
            r"prediction must have shape \(n_rows, n_columns\), got \(2,\)",
        ),
        ({"prediction": [[0.0]]}, TypeError, "integers"),
        (
            {"prediction": [[4, 0, 0], [0, 0, 0]]},
            ValueError,
            "to 3, the last of the 4 classes, got 0 to 4",
        ),
        ({"prediction": [[-2, 0, 0], [0, 0, 0]]}, ValueError, "got -2 to 0"),
        ({"truth": [[0]]}, ValueError, r"truth has shape \(1, 1\) but prediction \(2, 3\)"),
        ({"recorded": [1.0, 0.0]}, ValueError, "one share for each of the 4 classes"),
        ({"recorded": [50, 50, 0, 0]}, ValueError, "recorded sum to 100.*percent"),
        ({"recorded": [1.5, -0.5, 0, 0]}, ValueError, "recorded hold a negative share"),
        ({"recorded": [np.nan, 1, 0, 0]}, ValueError, "must be finite"),
        ({"recorded": [0.0, 0, 0, 0]}, ValueError, "recorded sum to 0, not 1"),
        ({"predicted": {"mucinous": 1.0}}, ValueError, r"names \['mucinous'\], not among"),
        ({"predicted": {"solid": "1"}}, TypeError, "must be a number, got '1'"),
        ({"metrics": [0.5]}, TypeError, "metrics must map names to numbers, got list"),
        ({"metrics": {"OP": "good"}}, TypeError, "OP.* must be a number"),
        ({"doubt": math.inf}, ValueError, "doubt must be finite"),
        ({"doubt": True}, TypeError, "doubt must be a number, got True"),
        ({"cell_pixels": 0}, ValueError, "cell_pixels must be finite and above 0, got 0"),
        ({"mpp": -1.0}, ValueError, "mpp must be finite and above 0"),
        ({"name": 7}, TypeError, r"slides\[0\].name must be a str, got 7"),
    ],
)
def test_slide_that_does_not_fit_is_refused(write, changes, error, match):
    with pytest.raises(error, match=match):
        write([make_slide(**changes)])


def test_empty_prediction_is_allowed(write):
    page = write([make_slide(predicted=[0.0] * 4, prediction=[[-1, -1, -1]] * 2)])
    assert page_values(page)[0] == "1.0"


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"slides": ["a"]}, TypeError, r"slides\[0\] must be a ReportSlide, got str"),
        (
            {"slides": [make_slide(), make_slide()]},
            ValueError,
            r"slides: .*\['slide 1'\] occur more than once",
        ),
        (
            {"slides": [make_slide("a", doubt=1), make_slide("b")]},
            ValueError,
            "1 of 2 .* 'b' has none",
        ),
        ({"classes": "solid"}, TypeError, "got the string 'solid'"),
        ({"classes": []}, ValueError, "1 to 255 names, got 0"),
        ({"classes": [str(i) for i in range(256)]}, ValueError, "1 to 255 names, got 256"),
        ({"classes": ["a", "a"]}, ValueError, r"\['a'\] occur more than once"),
        ({"classes": ["a", 1]}, TypeError, "must hold names"),
        ({"colors": {"solid": (0, 0, 300)}}, ValueError, "solid"),
        ({"metrics": [0.5]}, TypeError, "DataFrame or a mapping"),
        ({"metrics": {"OP": [0.5, 0.6], "PC": [0.5]}}, ValueError, "equally many values"),
        ({"metrics": {"OP": [[0.5]]}}, ValueError, "one number per fold"),
        ({"metrics": {"OP": ["good"]}}, TypeError, "OP.*give numbers"),
        ({"metrics": {}}, ValueError, "holds no score"),
        ({"metrics": pd.DataFrame({"system": ["a"]})}, ValueError, "holds no score"),
        (
            {"metrics": pd.DataFrame([[1, 2]], columns=["a", "a"])},
            ValueError,
            "names must be unique",
        ),
        ({"settings": [1]}, TypeError, "settings must map names to values"),
        ({"history": {"round": 0}}, TypeError, "list of dictionaries"),
        ({"history": [3]}, TypeError, r"history\[0\] must be a dictionary"),
        ({"history": [{"train_loss": 1.0}]}, ValueError, r"history\[0\] has no 'round'"),
        (
            {"history": [{"round": 0, "train_loss": "low"}]},
            ValueError,
            "train_loss.* number, got 'low'",
        ),
        (
            {"history": history_of(([1], [1]))},
            ValueError,
            "give history_classes=classifier.classes_",
        ),
        (
            {"history": history_of(([1], [1])), "history_classes": ["x"]},
            ValueError,
            r"names \['x'\], not among the classes",
        ),
        (
            {"history": history_of(([1, 2], [1, 2])), "history_classes": ["solid"]},
            ValueError,
            "one count for each of the 1 history_classes",
        ),
        (
            {"history": history_of(([-1], [1])), "history_classes": ["solid"]},
            ValueError,
            "n_positive.*one count",
        ),
    ],
)
def test_run_that_does_not_fit_is_refused(write, tmp_path, changes, error, match):
    with pytest.raises(error, match=match):
        write(**changes)
    assert not (tmp_path / "run.html").exists()


def test_page_is_the_same_apart_from_the_date(write):
    pages = [re.sub(r"written [^<]*", "", write([make_slide()]).source) for _ in range(2)]
    assert pages[0] == pages[1]
