"""What the README shows is what happens, and it is short."""

import re
from pathlib import Path

import pytest

from nearfar import CML

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.full
@pytest.mark.usefixtures("ml_100k")
def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 4
    names = {}
    for number, block in enumerate(BLOCKS):
        exec(block, names)
        if number == 0:  # later ones change the model
            model, again = names["model"], names["again"]
            assert isinstance(again, CML)
            assert again.recommend("196", k=10).equals(model.recommend("196", k=10))
    printed = capsys.readouterr().out
    assert "ndcg" in printed.lower()
    assert "item_id" in printed
    assert "value >= 4" in printed
    assert names["again"].metrics["test"]["k"] == 50
    parts = names["train"].n_pairs + names["test"].n_pairs
    assert names["model"].interactions.n_pairs == parts


def test_it_is_short_and_has_one_table_and_one_picture():
    assert len(TEXT.split()) <= 900
    assert len(re.findall(r"^\|[-|]+\|$", TEXT, re.MULTILINE)) == 1
    assert re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT) == ["docs/results/front.png"]
