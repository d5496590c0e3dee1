IN_A_NOTEBOOK_WITHOUT_WIDGETS = """
import sys, types

kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: kernel)
sys.modules["ipykernel.zmqshell"] = types.ModuleType("ipykernel.zmqshell")
sys.modules["ipywidgets"] = sys.modules["IPython.html.widgets"] = None
"""


def test_a_notebook_without_widgets_is_not_warned(run_script):
    plain = run_script(IN_A_NOTEBOOK_WITHOUT_WIDGETS + "import tqdm.auto")
    assert "TqdmWarning: IProgress not found" in plain.stderr  # else there is nothing to test
    use = "from skdiscovery.progress import tqdm; tqdm(total=3).update(3)"
    result = run_script(IN_A_NOTEBOOK_WITHOUT_WIDGETS + use)
    assert "Warning" not in result.stderr
    assert "3/3" in result.stderr
