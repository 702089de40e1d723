"""The report of a study: numbers in cells, text that is escaped, and a folder that is not there."""

import pytest

import nearfar as nf
from conftest import checkerboard
from nearfar.errors import StoreError
from nearfar.tuning.tuning_report import front_picture, write_tuning_report


@pytest.fixture(scope="module")
def tuned():
    return nf.tune(checkerboard(20), trials=2, epochs=1, k=5)


def test_commands_are_escaped_on_the_page(tuned, tmp_path):
    page = write_tuning_report(tuned, tmp_path, "nearfar fit '<b>&/' -o model/")
    assert "nearfar fit &#x27;&lt;b&gt;&amp;/&#x27;" in page.read_text()
    assert "    nearfar fit '<b>&/' -o model/" in (tmp_path / "report.md").read_text()


def test_values_that_the_data_decide_are_dashes(tuned, tmp_path):
    write_tuning_report(tuned, tmp_path, "")
    text = (tmp_path / "report.md").read_text().split("## All trials")[1]
    first = next(line for line in text.splitlines() if line.startswith("| complete | 0 |"))
    assert first.count("—") == 3  # temperature, negatives, and no error
    assert f" {tuned.table['ndcg'][0]:.4f} " in first


def test_a_single_objective_has_no_picture(tuned):
    assert front_picture(tuned) == ""


def test_a_folder_that_is_not_there_is_said(tuned, tmp_path):
    with pytest.raises(StoreError, match=r"Writing the report to '.*nowhere' failed"):
        write_tuning_report(tuned, tmp_path / "nowhere", "")
