import re
from importlib.metadata import requires

import pytest
import torch

import skdiscovery
from skdiscovery.ops import extension


@pytest.mark.parametrize(
    ("outcome", "shown"),
    [
        (extension.Outcome("kernels.so", "built before"), "cpp: kernels.so, built before"),
        (extension.Outcome(None, "there is no compiler"), "cpp: none: there is no compiler"),
    ],
)
def test_names_the_machine_the_versions_and_what_came_of_the_kernels(
    monkeypatch, capsys, outcome, shown
):
    monkeypatch.setattr(extension, "load", lambda backend: outcome)
    skdiscovery.show_versions()
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert shown in lines
    assert f"torch: {torch.__version__}".partition("+")[0] in "\n".join(lines)
    assert {"System:", "Python dependencies:", "Kernels:"} <= set(lines)


def test_names_all_that_the_package_needs(capsys):
    skdiscovery.show_versions()
    shown = set(re.findall(r"^ *([\w-]+): \d", capsys.readouterr().out, re.MULTILINE))
    needed = {
        re.match(r"[\w-]+", line)[0] for line in requires("skdiscovery") if "extra" not in line
    }
    assert {re.match(r"[\w-]+", line)[0].lower() for line in needed} <= shown
