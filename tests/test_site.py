"""The documentation site: every page and public name is on it, and it works in a browser."""

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import addresses
import contents
import docstrings
import nearfar as nf
import stage

ROOT = Path(__file__).parent.parent
REQUIRED = bool(os.environ.get("NEARFAR_REQUIRE_BROWSER"))
"""Set by .ci/run, where a missing tool is a failure."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROME = next(filter(None, map(shutil.which, BROWSERS)), None)
NO_SPHINX = "the extra nearfar[docs] is not installed"


def tool(name, missing):
    """Import a tool; where it is not required and not installed, the test is skipped."""
    return import_module(name) if REQUIRED else pytest.importorskip(name, reason=missing)


# -------------------------------------------------------------------------------------- contents


def test_the_navigation_has_every_page_once():
    named = [name for names in contents.NAVIGATION.values() for name in names]
    assert len(named) == len(set(named))
    docs = {path for path in (ROOT / "docs").rglob("*") if path.suffix in {".md", ".ipynb"}}
    reports = set(ROOT.glob("docs/results/*/*.md"))
    on_site = {path.relative_to(ROOT).as_posix() for path in docs - reports}
    missing = on_site - set(named) - {"docs/README.md"}
    assert missing == set(), "add them to NAVIGATION in website/contents.py"
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_reference_has_every_public_name_once():
    named = [name for _, names in contents.REFERENCE.values() for name in names]
    assert sorted(named) == sorted([*(f"nearfar.{name}" for name in nf.__all__), "nearfar.serve"])


def test_a_module_documents_what_is_public_in_it():
    splits = {"by_time", "by_user", "cold_items", "for_fold_in", "k_fold", "leave_one_out", "ratio"}
    assert set(stage.members("nearfar.split", nf.split)) == splits
    presets = {"cml_2017", "long_tail", "paper_2019", "released_2019"}
    assert set(stage.members("nearfar.presets", nf.presets)) == presets
    assert set(stage.members("nearfar.experiment", nf.experiment)) == set(nf.experiment.__all__)
    assert set(stage.members("nearfar.errors", nf.errors)) >= {"NearfarError", "NearfarWarning"}
    assert set(stage.members("nearfar.datasets", nf.datasets)) == {*nf.datasets.__all__} - {
        "DataError"
    }


# ----------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("module", [addresses, docstrings, stage], ids=lambda m: m.__name__)
def test_the_examples_of_the_builder(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("written", "on_site"),
    [
        ("[data](guides/data.md#splitting)", "[data](guides/data.md#splitting)"),
        ("[speed](../benchmarks/README.md)", "[speed](benchmarks/README.md)"),
        ("[all](README.md)", "[all](index.md)"),
        ("[out](https://a.org/b.md)", "[out](https://a.org/b.md)"),
        (
            "[`nearfar.method.loss.Triplet.term`](../src/nearfar/method/loss.py)",
            "{py:obj}`nearfar.method.loss.Triplet.term <nearfar.Triplet.term>`",
        ),
        (
            "[losses](../src/nearfar/method/loss.py)",
            "{py:obj}`losses <nearfar.method.loss>`",
        ),
        ("`nf.CML` and `nearfar fit`", "{py:obj}`nf.CML <nearfar.CML>` and `nearfar fit`"),
        ("`nearfar.cli`", "`nearfar.cli`"),
        ("`nearfar.engine.gpu.parts`", "`nearfar.engine.gpu.parts`"),  # needs PyTorch
        ("![speed](../benchmarks/results/a.png)", "![speed](benchmarks/results/a.png)"),
    ],
)  # fmt: skip
def test_links_of_a_page_lead_to_the_site(written, on_site):
    assert addresses.linked(written, "docs/paper.md") == on_site


def test_code_is_left_alone():
    page = "```python\n[a](b.md) `nf.CML`\n```\n\n    [a](../c.md)\n"
    assert addresses.linked(page, "docs/paper.md") == page
    assert addresses.targets(page, "docs/paper.md") == set()


def test_every_link_of_the_staged_pages_leads_to_a_staged_file(tmp_path):
    stage.stage(tmp_path)
    missing = []
    for page in tmp_path.rglob("*.md"):
        name = page.relative_to(tmp_path).as_posix()
        targets = addresses.targets(page.read_text(), name)
        missing.extend(f"{name}: {one}" for one in targets if not (tmp_path / one).exists())
    assert missing == []
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "left-over.md").write_text("# Gone\n")
    stage.stage(tmp_path)
    assert {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path in before
    } == before
    assert not (tmp_path / "left-over.md").exists()


# -------------------------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as `make docs` does."""
    tool("sphinx", NO_SPHINX), tool("furo", NO_SPHINX), tool("myst_nb", NO_SPHINX)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(ROOT / "website" / "make_site.py"), "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.mark.full
def test_the_reference_on_the_site_has_every_public_name(site):
    inventory = tool("sphinx.util.inventory", NO_SPHINX).InventoryFile
    listed = inventory.loads((site / "objects.inv").read_bytes(), uri="")
    names = {
        name for kind, named in listed.data.items() if kind.startswith("py:") for name in named
    }
    expected = set()
    for one in {*nf.__all__} - {"prepare"}:
        value = getattr(nf, one)
        expected.add(f"nearfar.{one}")
        if isinstance(value, type):
            own = [part for part, of in vars(value).items() if callable(of) and of.__doc__]
            expected |= {f"nearfar.{one}.{part}" for part in own if part[0] != "_"}
        elif isinstance(value, ModuleType):
            expected |= {f"nearfar.{one}.{part}" for part in stage.members(f"nearfar.{one}", value)}
    expected -= {"nearfar.split", "nearfar.presets", "nearfar.baselines", "nearfar.spark"}
    assert expected - names == set()
    assert "nearfar.prepare.prepare" in names


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
CLAIMS = {
    "first-model": r"largest cosine ([\d.]+)\s+first score +([\d.]+)",
    "against-popularity": r"NDCG: model ([\d.]+), popularity ([\d.]+)",
    "content": r"hybrid ([\d.]+), random ([\d.]+)",
}
"""Two numbers that each notebook prints: they are equal, or the first is far larger."""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_results(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if "outputs" in cell]
    assert cells
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.full
@pytest.mark.usefixtures("ml_100k")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_shown_with_its_results(site, notebook):
    page = (site / "notebooks" / f"{notebook.stem}.html").read_text()
    cells = json.loads(notebook.read_text())["cells"]
    assert page.count('class="cell_output ') >= sum("outputs" in cell for cell in cells) - 1
    assert "Traceback" not in page
    assert page.count("<img") >= sum("plt.show()" in "".join(cell["source"]) for cell in cells)
    first, second = map(
        float, re.search(CLAIMS[notebook.stem], re.sub("<[^>]+>", "", page)).groups()
    )
    if notebook.stem == "first-model":
        assert first == pytest.approx(second, abs=2e-4)
    else:
        assert first > 1.5 * second > 0


@pytest.mark.full
def test_a_page_needs_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*?(?:src|href)=\"(http[^\"]*)\"", page.read_text()
        )
        assert loaded == [], page.name


WRONG = ("[a](gone.md)", "[b](#gone)", "![c](gone.png)", "{py:obj}`d <nearfar.gone>`", "{gone}`e`")


@pytest.mark.full
def test_what_leads_nowhere_fails_the_build(tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'website')!r}); from pathlib import Path;"
        f"import make_site; folder = Path({str(tmp_path)!r});"
        "sys.exit(make_site.sphinx(folder / 'sources', folder))"
    )

    def built(text):
        (sources / "index.md").write_text(f"# Start\n\n{text}\n")
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    tool("sphinx", NO_SPHINX), tool("furo", NO_SPHINX), tool("myst_nb", NO_SPHINX)
    assert built("right").returncode == 0
    failed = built("\n\n".join(WRONG))
    assert failed.returncode != 0
    lines = {5 + 2 * n - 2 for n in range(len(WRONG))}
    told = {int(n) for n in re.findall(r"index\.md:(\d+): (?:WARNING|ERROR)", failed.stderr)}
    assert told == lines, failed.stderr


@pytest.fixture(scope="module")
def browser(site):
    if CHROME is None and not REQUIRED:
        pytest.skip(f"there is no browser here: none of {BROWSERS}")
    assert CHROME is not None
    playwright = tool("playwright.sync_api", "playwright is not installed")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROME, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_no_page_is_wider_than_the_screen_or_asks_elsewhere(site, browser, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith("http") and wrong.append(asked.url))
    page.on("requestfailed", lambda asked: wrong.append(asked.url))
    names = [path for path in sorted(site.rglob("*.html")) if "_modules" not in path.parts]
    assert len(names) > 30
    for name in names if (width, scheme) == (400, "light") else names[::8]:
        page.goto(name.as_uri())
        over = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if over > 0:
            wrong.append(f"{name.name} is {over} px too wide")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128
    context.close()
    assert wrong == []
    assert bright == (scheme == "light")


@pytest.mark.full
def test_search_finds_a_page_and_a_name(site, browser):
    context = browser.new_context()
    page = context.new_page()
    for words, found in (("popularity dial", "popularity"), ("fold_in_item", "the-model")):
        page.goto(f"{(site / 'search.html').as_uri()}?q={words.replace(' ', '+')}")
        page.wait_for_selector("#search-results ul.search li a")
        links = page.eval_on_selector_all("#search-results li a", "all => all.map(a => a.href)")
        assert any(found in link for link in links)
    context.close()
