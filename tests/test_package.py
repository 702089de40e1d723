"""What is published: one version everywhere, and in the sdist and the wheel what belongs there."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, version
from importlib.resources import files
from pathlib import Path

import pytest

import nearfar
from nearfar.version import VERSION

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIST = runpy.run_path(str(ROOT / "tools" / "check_dist.py"))
WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
in_a_checkout = pytest.mark.skipif(not WORKFLOW.exists(), reason="an sdist has no workflow")


def pythons_of(classifiers):
    return [c.split()[-1] for c in classifiers if re.search(r":: Python :: 3\.\d+$", c)]


def test_all_files_state_the_same_version():
    citation = (ROOT / "CITATION.cff").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    stated = {
        "pyproject.toml": PROJECT["version"],
        "CITATION.cff": re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1],
        "CHANGELOG.md": re.search(r"^## (\S+)", changes, re.MULTILINE)[1],
        "the installed package": version("nearfar"),
        "nearfar.__version__": nearfar.__version__,
    }
    assert stated == dict.fromkeys(stated, VERSION)


def test_the_licence_is_the_same_everywhere():
    assert PROJECT["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "\nlicense: MIT\n" in (ROOT / "CITATION.cff").read_text()


def test_the_installed_package_is_typed_and_says_what_it_is():
    assert files(nearfar).joinpath("py.typed").is_file()
    assert "Typing :: Typed" in metadata("nearfar").get_all("Classifier")
    doi = re.search(r"^  doi: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert PROJECT["urls"] == {"Paper": f"https://doi.org/{doi}"}


def test_the_pythons_that_are_claimed_are_tried():
    claimed = pythons_of(PROJECT["classifiers"])
    assert PROJECT["requires-python"] == f">={claimed[0]}"
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^RELEASE_PYTHONS \?= (.*)$", makefile, re.MULTILINE)[1].split() == claimed


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_each_environment_is_a_target_of_make():
    """PyTorch is named where a build of reasonable size is known."""
    for python in pythons_of(PROJECT["classifiers"]):
        for end in ("lowest", "newest"):
            make = ["make", "--dry-run", f"release-{python}-{end}"]
            done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True)
            (line,) = re.findall(r"release_environment\.py (.*?)\n *touch", unbroken(done.stdout))
            assert line.startswith(f"{python} {end} --workers 2")
            assert ("--torch 2.13.0" in line) == (python == "3.11")


def unbroken(text):
    """Join lines that end with a backslash."""
    return re.sub(r"\\\n *", "", text)


@in_a_checkout
def test_the_workflow_tries_them_and_may_do_little():
    text = WORKFLOW.read_text()
    listed = re.search(r"python: \[(.*)\]", text)[1]
    assert re.findall(r'"([\d.]+)"', listed) == pythons_of(PROJECT["classifiers"])
    assert "end: [lowest, newest]" in text
    assert "\npermissions: {}\n" in text
    assert re.findall(r"(\S+): write", text) == ["id-token"]
    actions = re.findall(r"uses: (\S+)@(\S+)", text)
    assert all(re.fullmatch(r"(release/)?v\d+", pinned) for _, pinned in actions)
    assert len(actions) == text.count("uses:")


# ------------------------------------------------------------------------- sdist and wheel


def names_of_a_wheel():
    package = {name.removeprefix("src/") for name in DIST["files_under"](ROOT, "src/nearfar")}
    return package | {f"nearfar-{VERSION}.dist-info/{name}" for name in DIST["DESCRIBED"]}


def sizes_of_an_sdist():
    names = DIST["NEEDED"] | DIST["files_under"](ROOT, "src/nearfar")
    names |= {name for name in DIST["files_under"](ROOT, "tests") if name.endswith(".py")}
    return {f"nearfar-{VERSION}/{name}": 100 for name in names}


@in_a_checkout
def test_a_wheel_with_what_belongs_there_has_no_fault():
    assert "nearfar/py.typed" in names_of_a_wheel()
    assert DIST["wheel_faults"](names_of_a_wheel(), ROOT) == []


@in_a_checkout
@pytest.mark.parametrize(
    "name", ["nearfar/py.typed", "nearfar/serve/page/index.html", "nearfar/__init__.py"]
)
def test_a_file_that_a_wheel_lacks_is_a_fault(name):
    faults = DIST["wheel_faults"](names_of_a_wheel() - {name}, ROOT)
    assert faults == [f"the wheel lacks {name}"]


@in_a_checkout
@pytest.mark.parametrize("name", ["tests/conftest.py", "benchmarks/run.py", "nearfar/new.csv"])
def test_a_file_that_a_wheel_must_not_have_is_a_fault(name):
    faults = DIST["wheel_faults"](names_of_a_wheel() | {name}, ROOT)
    assert faults == [f"the wheel has {name}"]


@in_a_checkout
def test_faults_of_an_sdist():
    sizes = sizes_of_an_sdist()
    assert DIST["sdist_faults"](sizes, ROOT) == []
    top = f"nearfar-{VERSION}/"
    del sizes[f"{top}tests/test_package.py"]
    sizes |= {f"{top}tests/log.parquet": 5, f"{top}docs/big.png": 2**21, f"{top}.ci/run": 7}
    assert DIST["sdist_faults"](sizes, ROOT) == [
        "the sdist lacks tests/test_package.py",
        "the sdist has .ci/run of 7 bytes",
        "the sdist has docs/big.png of 2,097,152 bytes",
        "the sdist has tests/log.parquet of 5 bytes",
    ]


@pytest.mark.slow
@in_a_checkout
def test_what_is_built_has_what_belongs_there(tmp_path):
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert DIST["faults_of"](tmp_path, ROOT) == []
