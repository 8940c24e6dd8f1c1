"""docs/audit-gallery.md: what it shows is what is recorded, in blocks as short as it says. tests/others runs
them beside the packages; here is the one that needs none."""

import re

import pytest
from helpers_embedding import lines_of
from helpers_gallery import RECORD, ROOT, check_as_recorded, gallery


def test_the_page_says_what_is_recorded():
    text = gallery.PAGE.read_text()
    assert gallery.with_findings(text, RECORD) == text
    changed = {**RECORD, "models": {**RECORD["models"]}}
    changed["models"]["als"] = RECORD["models"]["als"] | {"fraction_direction": 0.123}
    assert "12.3 %" in gallery.with_findings(text, changed)


def test_audits_take_three_lines_and_every_model_has_one_and_a_picture():
    assert "three at most" in gallery.PAGE.read_text()
    asks = [(package, text) for package, is_audit, text in gallery.blocks() if is_audit]
    assert len(asks) == len(gallery.MODELS)
    for model, (package, text) in zip(gallery.MODELS, asks):
        assert package == model.package
        assert f"\n{model.name} = fastpop.audit(" in f"\n{text}"
        assert 0 < lines_of(text) <= gallery.MOST_LINES, model.name
        assert max(map(len, text.splitlines())) <= 110
        assert f"](pictures/{model.picture.name})" in gallery.PAGE.read_text()
        assert model.picture.exists()
    assert set(RECORD["models"]) == {model.name for model in gallery.MODELS}


def test_versions_of_the_record_are_those_that_are_pinned():
    pins = {}
    for path in ROOT.glob("requirements/others*.txt"):
        pins |= dict(line.split("==") for line in path.read_text().splitlines() if "==" in line)
    pins = {name.lower(): version for name, version in pins.items()}
    assert {name: pins[name.lower()] for name in RECORD["versions"]} == RECORD["versions"]
    assert set(RECORD["versions"]) == set(map(gallery.installed, gallery.PACKAGES))


def test_two_arrays_on_disk_have_the_audit_that_is_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_as_recorded("arrays", gallery.run("")["arrays"]["arrays"])


def test_a_page_without_a_mark_is_refused():
    text = re.sub(r"<!-- lmf: .*\n", "", gallery.PAGE.read_text())
    with pytest.raises(ValueError, match="no mark for lmf"):
        gallery.with_findings(text, RECORD)
