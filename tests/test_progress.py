import subprocess
import sys

IN_A_NOTEBOOK_WITHOUT_WIDGETS = """
import sys, types

kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
sys.modules["ipywidgets"] = sys.modules["IPython.html.widgets"] = None
"""


def run(code):
    command = [sys.executable, "-c", IN_A_NOTEBOOK_WITHOUT_WIDGETS + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_notebook_without_widgets_is_not_warned():
    assert "TqdmWarning: IProgress not found" in run("import tqdm.auto").stderr  # else no test
    result = run("from skdiscovery.progress import tqdm; tqdm(total=3).update(3)")
    assert "Warning" not in result.stderr
    assert "3/3" in result.stderr
