"""Nothing compiles after warm-up, over two epochs of images of mixed sizes."""

import re


def test_a_run_compiles_its_step_once_and_nothing_after_the_first_validation(tiny_run):
    before, marker, after = tiny_run.stderr.partition("step 3: validation")
    compiled = re.findall(r"Finished XLA compilation of (\S+)", before)
    assert marker
    assert compiled.count("jit(step)") == 1
    assert 1 <= compiled.count("jit(find)") <= 2  # of two canvases
    assert "step 12: validation" in after
    # Reading another canvas for the first time may come later, the step never.
    assert set(re.findall(r"Compiling (\S+)", after)) == set(), after
