"""The report in headless Chromium: maps switch, fade and zoom, tables sort, nothing is loaded."""

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from proportion_ssl.evaluation import reliability
from proportion_ssl.reporting import ReportTest
from proportion_ssl.reporting._report import ReportSlide, report

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="no Chromium: install the packages chromium and chromium-driver to test the report in a browser",
)

FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1280,900"),
)
CLASSES = ["lepidic", "acinar", "papillary", "<img src=x onerror=alert(1)>"]
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium does not start as root with it
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def make_slides(n, rng, side=300):
    slides = []
    for i in range(n):
        shares = rng.dirichlet(np.ones(4), 2)
        slides.append(
            ReportSlide(
                HOSTILE if i == 1 else f"slide {i + 1}",
                rng.integers(120, 250, (side, side + 100, 3), dtype=np.uint8),
                prediction=rng.integers(-1, 4, (12, 16)),
                truth=rng.integers(-1, 4, (12, 16)),
                recorded=shares[0],
                predicted=shares[1],
                metrics={"mIoU": float(rng.uniform()), "OP": float("nan") if i == 0 else i / n},
                cell_pixels=side / 12,
                mpp=8.0,
            )
        )
    return slides


def write(path, n, rng, **changes):
    return report(
        path,
        slides=make_slides(n, rng, **changes),
        classes=CLASSES,
        metrics={
            "system": ["a", "b", "a", "b"],
            "mIoU": [0.3, 0.6, 0.4, 0.7],
            "OP": [0.9, 0.5, 0.9, 0.6],
        },
        history=[
            {"round": 0, "n_epochs": 9, "train_loss": 0.4, "valid_loss": 0.6},
            *(
                {
                    "round": i,
                    "n_epochs": 1,
                    "train_loss": 0.4 / i,
                    "valid_loss": 0.5,
                    "sum_absolute_error": 0.5 / i,
                    "n_positive": [10 * i, 5, i, 1],
                    "n_negative": [3, 20 - i, 0, 2],
                }
                for i in range(1, 12)
            ),
        ],
        history_classes=CLASSES,
        settings={"estimator": None, "a_long_name_of_a_setting" * 2: "x" * 300},
        title=f"Run {HOSTILE}",
    )


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report") / "run.html", 6, np.random.default_rng(0))


@pytest.fixture
def page(browser, page_path):
    """The page, freshly opened; whatever a test does, nothing may be loaded or go wrong."""
    resize(browser, 1280)
    open_page(browser, page_path)
    yield browser
    check_log(browser, page_path)


def resize(browser, width, height=900):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def open_page(browser, path):
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what earlier pages left
    browser.get(path.as_uri())


def check_log(browser, path):
    assert browser.get_log("browser") == []
    requested = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requested.append(message["params"]["request"]["url"])
    assert path.as_uri() in requested
    assert [u for u in requested if u != path.as_uri() and not u.startswith("data:")] == []


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def find_all(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def press(browser, *keys):
    webdriver.ActionChains(browser).send_keys(*keys).perform()


def focus(browser, element):
    browser.execute_script("arguments[0].focus()", element)


def layers_shown(browser, slide="s0"):
    return [
        layer
        for layer in ("prediction", "truth")
        if find(browser, f"#{slide} .map.{layer}").value_of_css_property("display") == "block"
    ]


def box(browser, selector):
    return browser.execute_script(
        "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height]",
        selector,
    )


# --- pictures -----------------------------------------------------------------------------------


def test_pictures_are_decoded_and_in_place(page):
    find(page, "#s0 .view").click()
    sizes = page.execute_async_script(
        "const done = arguments[0], images = [...document.querySelectorAll('#s0 img')];"
        "Promise.all(images.map((image) => image.decode())).then("
        "() => done(images.map((image) => [image.naturalWidth, image.naturalHeight])))"
    )
    assert sizes == [[400, 300], [16, 12], [16, 12]]
    assert box(page, "#s0 .map.prediction") == pytest.approx(box(page, "#s0 .thumb"), abs=0.5)


def test_maps_switch_by_click(page):
    assert layers_shown(page) == ["prediction"]
    for layer, shown in (("truth", ["truth"]), ("none", []), ("prediction", ["prediction"])):
        find(page, f"label[for={layer}-0]").click()
        assert layers_shown(page) == shown
    assert layers_shown(page, "s1") == ["prediction"], "the other slides stay as they are"


def test_maps_switch_by_keyboard(page):
    focus(page, find(page, "#prediction-0"))
    press(page, Keys.ARROW_RIGHT)
    assert layers_shown(page) == ["truth"]
    focus(page, find(page, "#s0 .view"))
    for key, shown in (("n", []), ("t", ["truth"]), ("P", ["prediction"])):
        press(page, key)
        assert layers_shown(page) == shown
    webdriver.ActionChains(page).key_down(Keys.ALT).send_keys("n").key_up(Keys.ALT).perform()
    assert layers_shown(page) == ["prediction"], "shortcuts of the browser are left alone"


def test_maps_of_all_slides_switch_together(page):
    find(page, "[data-all=truth]").click()
    assert all(layers_shown(page, f"s{i}") == ["truth"] for i in range(6))


def opacity(browser, slide="s0"):
    return float(find(browser, f"#{slide} .map.prediction").value_of_css_property("opacity"))


def test_maps_fade(page):
    assert opacity(page) == 0.5
    focus(page, find(page, "#s0 .fade input"))
    press(page, Keys.HOME)
    assert opacity(page) == 0
    press(page, *[Keys.ARROW_RIGHT] * 3)
    assert opacity(page) == pytest.approx(0.03)
    assert opacity(page, "s1") == 0.5
    focus(page, find(page, "#fade-all"))
    press(page, Keys.END)
    assert {opacity(page, f"s{i}") for i in range(6)} == {1}
    assert find(page, "#s0 .fade input").get_property("value") == "100"


@pytest.mark.slow
def test_pictures_zoom_by_button(page):
    find(page, "#s0 [data-zoom=fit]").click()
    before = box(page, "#s0 .stage")
    view = box(page, "#s0 .view")
    find(page, "#s0 [data-zoom=in]").click()
    after = box(page, "#s0 .stage")
    assert after[2] / before[2] == pytest.approx(1.5, rel=0.01)
    assert after[3] / before[3] == pytest.approx(1.5, rel=0.01)
    assert box(page, "#s0 .view")[2:] == pytest.approx(view[2:], abs=1), "the page does not jump"
    middle = [after[i] + after[i + 2] / 2 for i in (0, 1)]
    assert middle == pytest.approx([view[i] + view[i + 2] / 2 for i in (0, 1)], abs=2)
    assert box(page, "#s0 .map.prediction") == pytest.approx(box(page, "#s0 .thumb"), abs=1)
    find(page, "#s0 [data-zoom=out]").click()
    assert box(page, "#s0 .stage") == pytest.approx(before, abs=1)
    for _ in range(9):
        find(page, "#s0 [data-zoom=in]").click()
    assert box(page, "#s0 .stage")[2] / before[2] == pytest.approx(16, rel=0.01), "the greatest"
    find(page, "#s0 [data-zoom=fit]").click()
    assert box(page, "#s0 .stage") == pytest.approx(before, abs=1)


def test_pictures_zoom_and_move_by_keyboard(page):
    view = find(page, "#s0 .view")
    before = box(page, "#s0 .stage")
    focus(page, view)
    press(page, "+", "=")
    assert box(page, "#s0 .stage")[2] / before[2] == pytest.approx(2.25, rel=0.01)
    left = view.get_property("scrollLeft")
    press(page, *[Keys.ARROW_RIGHT] * 3)
    wait_for(lambda: view.get_property("scrollLeft") > left)
    press(page, "-", "0")
    assert box(page, "#s0 .stage")[2:] == pytest.approx(before[2:], abs=1)


@pytest.mark.slow
def test_zoomed_picture_follows_the_mouse(page):
    view = find(page, "#s0 .view")
    for _ in range(3):
        find(page, "#s0 [data-zoom=in]").click()
    start = [view.get_property(name) for name in ("scrollLeft", "scrollTop")]
    drag = webdriver.ActionChains(page).move_to_element(view).click_and_hold()
    drag.move_by_offset(-40, -30).release().perform()
    moved = [view.get_property(name) for name in ("scrollLeft", "scrollTop")]
    assert moved == pytest.approx([start[0] + 40, start[1] + 30], abs=1)
    webdriver.ActionChains(page).move_by_offset(25, 25).perform()
    assert [view.get_property(name) for name in ("scrollLeft", "scrollTop")] == moved, "released"


def test_scale_bar_is_true(page):
    find(page, "#s0 .view").click()

    def microns_per_pixel():
        number, unit = find(page, "#s0 .scale span").text.split()
        length = float(number) * {"mm": 1000, "µm": 1}[unit]
        return length / box(page, "#s0 .scale span")[2]

    wait_for(lambda: find(page, "#s0 .scale span").text)
    assert microns_per_pixel() == pytest.approx(400 * 8.0 / box(page, "#s0 .stage")[2], rel=0.01)
    for _ in range(4):
        find(page, "#s0 [data-zoom=in]").click()
    assert microns_per_pixel() == pytest.approx(400 * 8.0 / box(page, "#s0 .stage")[2], rel=0.01)


def wait_for(condition, seconds=5.0):
    """Until something holds that the browser does in its own time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.02)


# --- tables -------------------------------------------------------------------------------------


def column(browser, table, number):
    cells = find_all(browser, f"{table} tbody tr > :nth-child({number})")
    return [cell.text.split("\n")[0] for cell in cells]


def heading(browser, table, number):
    return find(browser, f"{table} thead th:nth-child({number})")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["click", "enter", "space"])
def test_tables_sort(page, how):
    def use(number):
        button = heading(page, "#slide-table", number).find_element(By.TAG_NAME, "button")
        if how == "click":
            button.click()
        else:
            focus(page, button)
            press(page, {"enter": Keys.ENTER, "space": Keys.SPACE}[how])

    def state(number):
        return heading(page, "#slide-table", number).get_dom_attribute("aria-sort")

    doubt = [float(v) for v in column(page, "#slide-table", 2)]
    assert state(2) == "descending" and doubt == sorted(doubt, reverse=True)
    use(2)
    assert state(2) == "ascending" and column(page, "#slide-table", 2) == [
        f"{v:.3f}" for v in sorted(doubt)
    ]

    use(1)  # names: digits by their value, an undefined score stays last whichever way
    names = column(page, "#slide-table", 1)
    assert state(1) == "ascending" and state(2) is None
    assert names == [HOSTILE, "slide 1", "slide 3", "slide 4", "slide 5", "slide 6"]
    use(5)
    scores = column(page, "#slide-table", 5)
    assert scores[-1] == "–" and scores[:-1] == sorted(scores[:-1], reverse=True)
    use(5)
    scores = column(page, "#slide-table", 5)
    assert state(5) == "ascending" and scores[-1] == "–" and scores[:-1] == sorted(scores[:-1])
    assert column(page, "#slide-table", 1)[-1] == "slide 1", "rows stay together"


def test_scores_and_rounds_sort_too(page):
    heading(page, ".scores", 2).find_element(By.TAG_NAME, "button").click()
    assert column(page, ".scores", 1)[:2] == ["b", "a"]
    find(page, "#rounds summary").click()
    heading(page, "#round-table", 1).find_element(By.TAG_NAME, "button").click()
    assert column(page, "#round-table", 1) == [str(i) for i in range(11, -1, -1)]


# --- the page as a whole ------------------------------------------------------------------------


def test_names_are_harmless(page):
    assert HOSTILE in [e.text for e in find_all(page, "h3")]
    assert page.title == f"Run {HOSTILE}"
    assert len(find_all(page, "script")) == 1 and not find_all(page, "img[src=x]")
    assert CLASSES[3] in find(page, "#overview .legend").text


def test_policy_stops_foreign_scripts_styles_and_pictures(browser, page_path):
    """What a mistake in escaping would let in does not run."""
    open_page(browser, page_path)
    browser.execute_script(
        "window.ran = false;"
        "const script = document.createElement('script');"
        "try { script.textContent = 'window.ran = true'; } catch (refused) {}"
        "document.body.append(script);"
        "const image = document.createElement('img'); image.src = 'https://example.invalid/x.png';"
        "document.body.append(image);"
    )
    assert browser.execute_script("return window.ran") is False
    wait_for(
        lambda: any("Content Security Policy" in e["message"] for e in browser.get_log("browser"))
    )


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_page_fits_its_width(page, width):
    resize(page, width)
    find(page, "#rounds details summary").click()
    page.execute_script(
        "for (const s of document.querySelectorAll('.slide')) s.style.contentVisibility = 'visible'"
    )
    widest = page.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widest == [width] * 2
    find(page, "#s0 [data-zoom=in]").click()
    assert page.execute_script("return document.documentElement.scrollWidth") == width


def test_overview_shows_doubt_on_a_phone(browser, tmp_path):
    """However long the names: they wrap, and stay in sight when the table is moved."""
    slides = make_slides(2, np.random.default_rng(0), side=60)
    slides[0] = replace(slides[0], name="archive-" * 12)
    path = report(tmp_path / "run.html", slides=slides, classes=CLASSES)
    resize(browser, 390)
    open_page(browser, path)
    left, _, width, _ = box(browser, "#slide-table tbody td.number")
    assert left + width < 390
    find(browser, "#overview .scroll").click()
    browser.execute_script("document.querySelector('#overview .scroll').scrollLeft = 999")
    assert box(browser, "#slide-table tbody td.number")[0] < left
    assert box(browser, "#slide-table tbody th")[0] >= 0


@pytest.mark.parametrize(("n_positive", "n_negative"), [(999, 1), (1, 999), (7, 0), (0, 7), (5, 5)])
def test_numbers_at_the_chart_do_not_overlap(browser, tmp_path, n_positive, n_negative):
    history = [
        {"round": i, "n_positive": [n_positive, 0], "n_negative": [0, n_negative]} for i in (1, 2)
    ]
    path = tmp_path / "run.html"
    report(path, slides=[], classes=["a", "b"], history=history, history_classes=["a", "b"])
    open_page(browser, path)
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('#counts .y')].map((e) => {"
        "const b = e.getBoundingClientRect(); return [e.textContent, b.top, b.bottom]})"
    )
    expected = [str(n) for n in (n_positive, "0", n_negative) if n != 0]
    assert [text for text, *_ in boxes] == expected
    for above, below in pairwise(boxes):
        assert above[2] <= below[1] + 6, "line boxes are taller than digits"


def test_controls_are_large_enough_for_a_finger(page):
    resize(page, 375)
    find(page, "#s0 .view").click()
    for selector in ("#s0 .layer + label", "#s0 .zoom button", "#s0 .fade input"):
        for element in find_all(page, selector):
            assert min(element.size["height"], element.size["width"]) >= 32, selector


@pytest.mark.slow
def test_everything_is_reached_by_tab(page):
    """Once through the page: no control is left out, the focus never sticks, and it can be seen."""
    wanted = {"skip", "sort", "layer", "fade", "zoom", "view", "all", "summary"}
    page.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    reached, seen = set(), []
    for _ in range(250):
        press(page, Keys.TAB)
        name, key, outline = page.execute_script(
            "const e = document.activeElement;"
            "if (e === document.body) return [null, null, null];"
            "window.keys ??= new Map(); if (!keys.has(e)) keys.set(e, keys.size);"
            "const shown = e.matches('.layer') ? e.nextElementSibling : e;"
            "const kinds = {layer: '.layer', fade: '.fade input', zoom: '[data-zoom]', all: '[data-all]',"
            " summary: 'summary', view: '.view', sort: '.sort', skip: '.skip'};"
            "const name = Object.keys(kinds).find((kind) => e.matches(kinds[kind])) ?? e.tagName;"
            "return [name, keys.get(e), getComputedStyle(shown).outlineStyle]"
        )
        if name is None or (key == 0 and seen):
            break
        assert outline != "none", f"focus on {name} cannot be seen"
        assert key not in seen, "the focus went back"
        seen.append(key)
        reached.add(name)
    else:
        pytest.fail("the end of the page was not reached")
    assert wanted <= reached


def test_dark_and_light(page):
    def colors():
        body = find(page, "body")
        return [body.value_of_css_property(name) for name in ("background-color", "color")]

    light = colors()
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    dark = colors()
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    brightness = [
        sum(int(v) for v in c[c.index("(") + 1 : -1].split(",")[:3]) for c in (*light, *dark)
    ]
    assert brightness[0] > 600 > 200 > brightness[1] and brightness[2] < 200 < 600 < brightness[3]


def test_page_works_without_script(browser, page_path):
    """Maps still switch; controls that need the script are not shown."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        resize(browser, 1280)
        open_page(browser, page_path)
        find(browser, "label[for=truth-0]").click()
        assert layers_shown(browser) == ["truth"]
        assert not find(browser, "#s0 .zoom").is_displayed()
        assert not find(browser, "#s0 .fade").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.slow
def test_page_of_40_slides_opens(browser, tmp_path, capsys):
    path = write(tmp_path / "cohort.html", 40, np.random.default_rng(1), side=700)
    size = path.stat().st_size
    assert size < 15e6
    resize(browser, 1280)
    open_page(browser, path)
    assert len(find_all(browser, ".slide")) == 40
    loaded, painted = browser.execute_async_script(
        "const done = arguments[0];"
        "requestAnimationFrame(() => requestAnimationFrame(() => done(["
        "performance.getEntriesByType('navigation')[0].loadEventEnd,"
        "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null])))"
    )
    assert loaded > 0
    check_log(browser, path)
    text = f"\n40 slides, {size / 1e6:.1f} MB: loaded after {loaded:.0f} ms, painted after {painted} ms\n"
    with capsys.disabled():
        sys.stdout.write(text)  # for people to see; the clock of a shared machine decides nothing


# --- layers and tables of test slides -----------------------------------------------------------


@pytest.fixture(scope="module")
def test_page_path(tmp_path_factory):
    rng = np.random.default_rng(3)
    slides = [
        replace(
            slide,
            probability=rng.random((12, 16)),
            uncertainty=rng.random((12, 16)),
            others={"another system": rng.integers(-1, 4, (12, 16))},
            intervals={name: (0.1, 0.8) for name in CLASSES},
            used_record=i == 2,
        )
        for i, slide in enumerate(make_slides(3, rng))
    ]
    shares = pd.DataFrame(rng.dirichlet([1, 1, 1], 6), columns=CLASSES[:3])
    test = ReportTest(
        pd.DataFrame({"OP": [0.7, 0.9], "OP_low": 0.5, "OP_high": 0.95}, index=["A", "B"]),
        recorded=shares,
        predicted=shares.iloc[::-1].reset_index(drop=True),
        reliability=reliability(rng.integers(0, 3, 50), rng.dirichlet([1, 1, 1], 50)),
    )
    path = tmp_path_factory.mktemp("report") / "test.html"
    return report(path, slides=slides, classes=CLASSES, test=test)


@pytest.mark.slow
def test_every_layer_is_shown_alone(browser, test_page_path):
    resize(browser, 1280)
    open_page(browser, test_page_path)
    article = find(browser, ".slide")
    layers = ["prediction", "truth", "probability", "uncertainty", "other-0"]
    for layer in layers:
        find(article, f".layer.{layer} + label").click()
        shown = [name for name in layers if find(article, f".map.{name}").is_displayed()]
        assert shown == [layer]
        ramp = find(article, ".ramp").is_displayed()
        assert ramp == (layer in ("probability", "uncertainty"))
    view = find(article, ".view")
    for key, layer in (("b", "probability"), ("u", "uncertainty"), ("p", "prediction")):
        view.send_keys(key)
        assert find(article, f".map.{layer}").is_displayed()
    find(browser, "[data-all=uncertainty]").click()
    assert all(e.get_property("checked") for e in find_all(browser, ".layer.uncertainty"))
    check_log(browser, test_page_path)


def test_tables_of_test_slides_sort_and_the_other_one_copies(browser, test_page_path):
    resize(browser, 1280)
    open_page(browser, test_page_path)
    heading(browser, "#test-table", 2).find_element(By.TAG_NAME, "button").click()
    assert column(browser, "#test-table", 1) == ["B", "A"]
    find(browser, ".spreadsheet summary").click()
    find(browser, ".copy").click()
    assert find(browser, ".copied").text in ("copied", "selected; press Ctrl+C")
    selected = browser.execute_script(
        "const t = document.querySelector('textarea'); return t.value.slice(t.selectionStart, t.selectionEnd)"
    )
    assert len(selected.split("\n")) == 4 and selected.startswith("slide\trecord used")
    assert len(find_all(browser, "#slide-table tbody tr")) == 2
    assert len(find_all(browser, "#record-table tbody tr")) == 1
    check_log(browser, test_page_path)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_page_of_test_slides_fits_its_width(browser, test_page_path, width):
    resize(browser, width)
    open_page(browser, test_page_path)
    browser.execute_script(
        "document.querySelectorAll('.slide').forEach(e => e.style.contentVisibility = 'visible')"
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for table in find_all(browser, ".shares"):
        box, card = table.rect, table.find_element(By.XPATH, "ancestor::article").rect
        assert box["x"] + box["width"] <= card["x"] + card["width"] + 1


def test_print_shows_tables_and_no_controls(browser, test_page_path):
    resize(browser, 750)
    open_page(browser, test_page_path)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        for hidden in ("nav", ".tools", ".zoom", ".spreadsheet", ".layer + label"):
            assert not any(e.is_displayed() for e in find_all(browser, hidden)), hidden
        for shown in ("#test-table", "#agreement-table", ".reliability", ".shares"):
            assert find(browser, shown).is_displayed(), shown
        color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert color == "rgb(255, 255, 255)"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
