"""The command `fsis` itself."""

from fsis_jax import cli


def test_without_a_command_the_usage_is_an_error(fsis, capsys):
    outcome = fsis()
    assert outcome.status == 2
    assert "usage: fsis {train,evaluate,segment,references,convert,data} ..." in outcome.stderr
    assert "usage: fsis" in fsis("--help").stdout


def test_ctrl_c_ends_in_one_line(fsis, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "data", interrupted)
    outcome = fsis("data")
    assert outcome.status == 130
    assert outcome.stderr == "fsis: stopped; what was written is complete\n"
