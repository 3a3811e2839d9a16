"""The page: complete, safe whatever the names are, without script or network, readable at two widths."""

import html
import html.parser
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import netweight as nw
from netweight.bound import MODELS, STATEMENT
from netweight.errors import UsageError
from netweight.importance.stat import Stat
from netweight.report import report
from netweight.report.chart import Chart, ticks
from netweight.report.markup import Markup, element, escape
from netweight.report.page import POLICY

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style></svg><h1>here</h1>",
    "' onmouseover='x",
    "javascript:alert(1)//&lt;b&gt;&amp;",
    "a\u202egnp.exe\u0007\x1b[2J\u2028",
    "]]><!--",
    "{{7*7}}${7*7}",
    "very." * 60 + "long",
    "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace") + "é漢🙂",
)
PHONE, DESK = (390, 844), (1280, 900)


class Tags(html.parser.HTMLParser):
    """Every element and attribute as a browser's tokenizer sees them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)


def hostile_network() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=(24, 48)).astype(np.float32) for name in HOSTILE}


@pytest.fixture(scope="module")
def files(tmp_path_factory, every_law) -> dict[str, Path]:
    """A network and its file, and one with hostile names and metadata."""
    folder = tmp_path_factory.mktemp("report")
    found = {}
    for name, tensors in (("plain", every_law), ("hostile", hostile_network())):
        original, out = folder / f"{name}.safetensors", folder / f"{name}.nwt"
        save_file(tensors, original, metadata={f"<i>{HOSTILE[0]}": HOSTILE[1], "format": "pt"})
        nw.compress(original, out, bits=4)
        found |= {name: out, f"{name} original": original}
    return found


@pytest.fixture(scope="module")
def pages(files) -> dict[str, str]:
    made = {name: report(files[name], files[f"{name} original"]) for name in ("plain", "hostile")}
    return made | {f"{name} alone": report(files[name]) for name in ("plain", "hostile")}


class TestMarkup:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_text_comes_out_as_text(self, text):
        found = Tags(element("p", text, title=text))
        assert found.tags == ["p"]
        assert [(name) for _, name, _ in found.attributes] == ["title"]
        shown = "".join(found.text)
        plain = "".join(c for c in text if c.isprintable())
        assert shown == found.attributes[0][2]
        assert plain in shown or any(not c.isprintable() for c in text)
        assert all(c.isprintable() for c in shown)

    def test_halves_of_surrogate_pairs_can_be_encoded(self):
        assert escape("\ud800x").encode() == b"\\ud800x"

    def test_markup_is_kept_and_text_is_not(self):
        assert element("b", Markup("<i/>"), "<i/>") == "<b><i/>&lt;i/&gt;</b>"

    def test_attributes(self):
        assert element("line", x1=1.23456, class_="a", stroke_width=2, gone=None) == (
            '<line x1="1.23" class="a" stroke-width="2"/>'
        )

    def test_joined_or_formatted_text_is_not_trusted(self):
        """Only `Markup` is: what str methods make of it is text again."""
        assert not isinstance(Markup("<b>") + "x", Markup)
        assert element("p", Markup("<b>") + "x") == "<p>&lt;b&gt;x</p>"


class TestChart:
    @pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e-9, 2e-9), (0, 1e12), (5, 5), (0, np.inf)])
    def test_ticks_are_inside_and_few(self, low, high):
        found = ticks(low, high)
        assert 1 <= len(found) <= 12
        if np.isfinite(high):
            assert all(low - 1e-9 * (high - low) - 1e-300 <= t <= high + 1e-9 * (high - low) for t in found)

    def test_corners(self):
        chart = Chart("t", (1.0, 100.0), (0.0, 5.0), "x", "y", log_x=True)
        left, bottom = chart.place((1.0, 0.0))
        right, top = chart.place((100.0, 5.0))
        middle, _ = chart.place((10.0, 0.0))
        assert left < middle < right
        assert middle == pytest.approx((left + right) / 2)
        assert top < bottom

    def test_nothing_not_a_number_is_drawn(self):
        chart = Chart("t", (0.0, 1.0), (0.0, 0.0), "x", "y")
        chart.line([(0.0, 0.0), (1e300, 1e300)], "ours")
        assert not re.search("nan|inf", chart.draw())


class TestPage:
    def test_with_the_original_it_has_everything(self, pages):
        page = pages["plain"]
        for words in (
            "Rate and distortion", "From R(D) to the file", "Bytes by tensor", "Bits above the bound by tensor",
            "Predicted beside measured", "Weights and grid", "Provenance", "Plan", "dense.weight",
        ):  # fmt: skip
            assert words in page
        assert escape(STATEMENT) in page
        assert all(model.title in page for model in MODELS.values())
        assert "the same: the file was made from it" in page

    def test_alone_it_has_what_the_file_tells(self, pages):
        page = pages["plain alone"]
        assert "Bytes by tensor" in page
        assert "Weights and grid" in page
        assert "--against ORIGINAL" in page
        assert "Rate and distortion" not in page
        assert "above the bound" not in page

    @pytest.mark.core
    def test_numbers_are_those_of_the_file(self, files, pages):
        page = "".join(Tags(pages["plain"]).text)
        with nw.Archive.open(files["plain"]) as archive:
            assert f"{archive.nbytes:,} bytes" in page
            assert str(archive.header.source["sha256"]) in page
            assert archive.header.by in page
        found = nw.bound(files["plain original"], archive=files["plain"])
        weights = sum(t.weights for t in found.modelled)
        for model in MODELS:
            assert f"{found.rate_bits(model) / weights:.3f}" in page

    def test_the_tangent_touches_the_curve(self, pages):
        """The dashed line and the predicted curve agree at the file's rate, and the line is below elsewhere."""
        figure = pages["plain"].split("Rate and distortion")[1].split("</section>")[0]
        points = {
            name: np.array([[float(v) for v in p.split(",")] for p in coordinates.split()])
            for coordinates, name in re.findall(r'points="([^"]+)" class="line (\w+)"', figure)
        }
        x, y = (float(v) for v in re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="5"', figure)[0])
        height = {name: np.interp(x, line[:, 0], line[:, 1]) for name, line in points.items()}
        assert height["tangent"] == pytest.approx(y, abs=0.5)
        assert height["ours"] == pytest.approx(y, abs=10), "prediction and file"
        assert height["bound"] > y, "the bound is below: SVG counts from the top"
        for aside in (-60, -30, 30, 60):
            line, curve = (np.interp(x + aside, points[n][:, 0], points[n][:, 1]) for n in ("tangent", "ours"))
            assert line > curve - 3

    def test_another_original_is_told(self, files, every_law):
        other = {name: w + w.dtype.type(1) if w.dtype.kind == "f" else w for name, w in every_law.items()}
        assert "is not the one that the file was made from" in report(files["plain"], other)

    def test_an_unknown_law_is_refused(self, files):
        with pytest.raises(UsageError, match="There is no law 'cauchy'"):
            report(files["plain"], model="cauchy")

    def test_a_file_without_lossy_tensors(self):
        tensors = {"a": np.arange(10), "b": np.zeros((0, 3), np.float32)}
        archive = nw.compress(tensors, slope=1.0)
        assert "No tensor is stored with loss" in report(archive)
        assert "No lossy tensor" in report(archive, tensors)

    def test_constant_and_tiny_tensors(self):
        tensors = {
            "one": np.ones((8, 8), np.float32),
            "w": np.float32([[1, 2], [3, 4]]),
            "s": np.array(2.0, np.float32),
        }
        archive = nw.compress(tensors, slope=1e-4, importance={name: Stat() for name in tensors})
        for page in (report(archive), report(archive, tensors)):
            assert not re.search(r'="[^"]*\b(nan|inf)\b', page)


class TestSafety:
    @pytest.mark.parametrize("page", ["hostile", "hostile alone", "plain", "plain alone"])
    def test_only_our_elements_and_attributes(self, pages, page):
        found = Tags(pages[page])
        assert set(found.tags) <= {
            "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "details",
            "summary", "h1", "h2", "h3", "p", "div", "span", "b", "i", "code", "ul", "li", "dl", "dt", "dd", "table",
            "thead", "tbody", "tr", "th", "td", "svg", "rect", "line", "polyline", "polygon", "circle", "text",
        }  # fmt: skip
        assert not [a for a in found.attributes if a[1].startswith("on") or a[1] in ("src", "href", "srcdoc", "style")]

    @pytest.mark.parametrize("page", ["hostile", "plain"])
    def test_nothing_is_loaded(self, pages, page):
        text = pages[page]
        assert "<script" not in text
        assert "@import" not in text
        assert "url(" not in text
        assert "<link" not in text
        assert "<iframe" not in text
        assert POLICY in Tags(text).attributes[next(
            n for n, a in enumerate(Tags(text).attributes) if a[1] == "http-equiv"
        ) + 1][2]  # fmt: skip

    def test_hostile_names_are_shown(self, pages):
        shown = "".join(Tags(pages["hostile"]).text)
        for name in HOSTILE[:5] + HOSTILE[6:8]:
            assert name in shown
        assert r"a\u202egnp.exe\x07\x1b[2J\u2028" in shown

    def test_the_page_is_small_and_valid_text(self, pages):
        for page in pages.values():
            assert len(page.encode()) < 200_000
            assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", page)


def chromium() -> str:
    """The browser; the tests that need one are skipped, with a warning, where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    return ""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Run headless Chromium on a page: give the DOM after layout, or take a picture."""
    program = chromium()
    if not program:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("CHROMIUM IS MISSING: the report was not looked at (Debian package chromium)", stacklevel=1)
        pytest.skip("CHROMIUM IS MISSING: the report was not looked at (Debian package chromium)")
    folder = tmp_path_factory.mktemp("browser")

    def look(page: Path, size: tuple[int, int], *options: str) -> str:
        profile = tmp_path_factory.mktemp("profile")
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", *options, page.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return look


# Put before the end of a copy of the page, without its policy: writes what is too wide, or too small, into the title of
# the page around. A window may not be as narrow as a phone, a frame may.
PROBE = """<script>
const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
  && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + '.' + e.className);
const letters = [...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height);
parent.document.title = JSON.stringify({inner: innerWidth, scroll: document.documentElement.scrollWidth, wide: wide,
  least: Math.min(...letters), pictures: document.querySelectorAll('svg.chart').length,
  flat: [...document.querySelectorAll('svg.chart')].filter(e => e.getBoundingClientRect().height < 100).length});
</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("page", ["plain", "hostile", "plain alone"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_page_fits_the_screen(pages, browser, tmp_path, page, size):
    path = tmp_path / "page.html"
    copy = re.sub(r'<meta http-equiv="[^>]*>', "", pages[page].replace("</body>", PROBE))
    frame = f'<iframe style="border: 0; width: {size[0]}px; height: {size[1]}px" srcdoc="{html.escape(copy)}"></iframe>'
    path.write_text(f"<!doctype html><title>-</title>{frame}", encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", browser(path, DESK, "--dump-dom"), re.DOTALL)
    found = json.loads(html.unescape(title[1]))
    assert found["inner"] == size[0]
    assert found["scroll"] <= size[0]
    assert found["wide"] == []
    assert found["least"] >= 9, "letters of pictures, in pixels"
    assert found["pictures"] >= (5 if page == "plain" else 1)
    assert found["flat"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_page_is_drawn(pages, browser, tmp_path, size, dark):
    """Light is light and dark is dark, and both show more than paper: looked at pixel by pixel."""
    from matplotlib import image

    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(pages["plain"], encoding="utf-8")
    browser(path, size, f"--screenshot={picture}", *(["--force-dark-mode"] if dark else []))
    pixels = image.imread(picture)[..., :3]
    assert pixels.shape[:2] == size[::-1]
    assert (pixels[3, 3].mean() < 0.2) == dark
    assert pixels.std() > 0.05
    assert len(np.unique((pixels * 15).astype(int).reshape(-1, 3), axis=0)) > 20


@pytest.mark.slow
def test_hostile_names_do_not_run(pages, browser, tmp_path):
    """Even without the policy: the browser itself finds no script, and the title is ours."""
    path = tmp_path / "page.html"
    path.write_text(re.sub(r'<meta http-equiv="[^>]*>', "", pages["hostile"]), encoding="utf-8")
    dom = browser(path, DESK, "--dump-dom")
    assert "<title>hostile.nwt – netweight report</title>" in dom
    assert "<script" not in dom
    assert "<img" not in dom
    assert dom.count("<h1") == 1
