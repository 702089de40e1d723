"""What the README shows is what happens."""

import re
from pathlib import Path

import pytest

from nearfar import CML

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.usefixtures("ml_100k")
def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 4
    names = {}
    for block in BLOCKS:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "ndcg" in printed.lower()
    assert "item_id" in printed
    assert "value >= 4" in printed
    assert isinstance(names["again"], CML)
    assert names["again"].recommend("196", k=10).equals(names["model"].recommend("196", k=10))
