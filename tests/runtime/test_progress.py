"""One display for all that moves on the error stream."""

import pytest

from nearfar.runtime.progress import Bars, Reporter, Stages


def test_bars_are_shown_where_they_are_asked_for(capsys):
    for kind in ("busy", "bytes", "epochs", "share", "steps"):
        for shown in (False, True):
            with Bars(shown, kind) as bars:
                assert bars.visible == shown
                bars.show("a task", total=4)
                bars.show("a task", advance=1)
                bars.show("a task", completed=3)
            assert not bars.visible
            out, err = capsys.readouterr()
            assert out == ""
            assert ("a task" in err) == shown


def test_without_a_terminal_nothing_moves_unless_it_must(capsys, monkeypatch):
    with Bars(None, "share") as bars:
        assert not bars.visible
    with Bars(True, "share", terminal_only=True) as bars:
        assert not bars.visible
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bars(True, "share", terminal_only=True, transient=True) as bars:
        assert bars.visible
        bars.show("ranking", total=2)
    assert "ranking" in capsys.readouterr().err


def test_stages_follow_each_other_and_end_full(capsys):
    with Stages(True) as stages:
        stages.begin("opening")
        stages.begin("reading", 4000)
        stages.advance(1000)
        stages.advance(3000)
        stages.begin("saving")
    shown = capsys.readouterr().err
    places = [shown.index(part) for part in ("opening", "reading", "4,000 of 4,000", "saving")]
    assert places == sorted(places)


def test_a_run_reports_epochs_loss_and_validation(capsys):
    with Reporter(True, 4, 10) as report:
        report.note("compiling")
        report.steps(20, 0.5)
        report.epoch({"loss": 0.25, "validation_ndcg": 0.125})
    assert "2/4 epochs, loss 0.2500, NDCG 0.1250" in capsys.readouterr().err


def test_it_ends_also_with_an_error(capsys):
    bars = Bars(True, "busy")
    with pytest.raises(ValueError, match="broken"), bars:
        raise ValueError("broken")
    assert not bars.visible
