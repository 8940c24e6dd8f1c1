"""What a package index, an archive and a reader are given; `make wheel` builds it and tries it."""

import importlib.util
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import fastpop

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOME = "https://example.org/fastpop"
OTHER_NAMES = {"torch": "pytorch", "duckdb": "python-duckdb"}  # on conda-forge


def function_of_setup(name):
    """One of setup.py, which builds when it is imported."""
    source = (ROOT / "setup.py").read_text()
    code = re.search(rf"^def {name}\(.*?(?=^\S)", source, re.M | re.DOTALL)[0]
    names = {"re": re, "ROOT": ROOT}
    exec(code, names)
    return names[name]


def archives():
    spec = importlib.util.spec_from_file_location("archives", ROOT / "tests" / "archives.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_index_is_given_no_link_that_leads_nowhere():
    described = function_of_setup("described")
    readme = (ROOT / "README.md").read_text()
    for page in (described(readme, None, "1.2"), described(readme, HOME, "1.2")):
        assert not [link for link in re.findall(r"\]\(([^)]+)\)", page) if not re.match(r"https?:|#", link)]
    with_home = described(readme, HOME, "1.2")
    assert f"]({HOME}/raw/v1.2/docs/pictures/demo-score-against-log-p.png)" in with_home
    assert f"]({HOME}/blob/v1.2/docs/embedding.md#rectools)" in with_home
    assert "![" not in described(readme, None, "1.2")
    assert described("[a](b.md) ![c](d.png) [e](https://f)", None, "1") == "a  [e](https://f)"


def test_one_version_everywhere():
    assert function_of_setup("version")() == fastpop.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == fastpop.__version__
    assert f'version = "{fastpop.__version__}"' in (ROOT / "conda" / "meta.yaml").read_text()


def test_the_recipe_needs_what_the_project_needs():
    recipe = (ROOT / "conda" / "meta.yaml").read_text()
    run = re.search(r"  run:\n((?:    - .*\n)+)", recipe)[1]
    asked = {line.strip("- ").replace(" ", "") for line in run.splitlines()} - {"python>=3.11"}
    wanted = [one.split(">=") for one in PROJECT["project"]["dependencies"]]
    assert asked == {f"{OTHER_NAMES.get(name, name)}>={least}" for name, least in wanted}


@pytest.mark.parametrize(
    "page", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name
)
def test_a_template_is_one(page):
    found = yaml.safe_load(page.read_text())
    if page.name != "config.yml":
        assert {"name", "description", "body"} <= set(found)
        assert all(part["attributes"]["label"] for part in found["body"])


def test_wheels_are_tried_by_a_script_that_is_there():
    wheels = PROJECT["tool"]["cibuildwheel"]
    (script,) = re.findall(r"\{project\}/(\S+)", wheels["test-command"])
    assert (ROOT / script).exists()
    source = (ROOT / script).read_text()
    listed = re.findall(r'^    "(\S+\.py)",$', source, re.M)
    assert listed
    for name in listed:
        assert (ROOT / "tests" / name).exists()
    assert wheels["environment"]["FASTPOP_CUDA"] == "0"


def test_faults_of_an_archive_are_seen(tmp_path):
    module = archives()
    sdist, wheel = tmp_path / "fastpop-1.tar.gz", tmp_path / "fastpop-1-py3-none-any.whl"
    (tmp_path / "secret.txt").write_text("x")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(tmp_path / "secret.txt", "fastpop-1/secret.txt")
        archive.add(ROOT / "setup.py", "fastpop-1/setup.py")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("fastpop/__init__.py", "")
        archive.writestr("tests/test_x.py", "")
    assert {"has secret.txt", "lacks csrc/bindings.cpp", "lacks LICENSE"} <= module.of_sdist(sdist)
    assert "lacks setup.py" not in module.of_sdist(sdist)
    found = module.of_wheel(wheel)
    assert {"has tests/test_x.py", "has 0 compiled modules", "lacks its licence"} <= found
    assert "lacks fastpop/data/bundled/movietweetings-100k.LICENSE.txt" in found
    assert not any("csrc" in one for one in found)
