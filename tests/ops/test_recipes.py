import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from skdiscovery.ops import recipes


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for variable in ("CUDA_HOME", recipes.ARCHITECTURES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


def targets():
    return [flag for flag in recipes.recipe_for("cuda").flags if flag.startswith("-gencode")]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [("8.0", ["sm_80"]), ("8.0;9.0a", ["sm_80", "sm_90a"])],
)
def test_architectures_may_be_listed(monkeypatch, listed, expected):
    monkeypatch.setenv(recipes.ARCHITECTURES_VARIABLE, listed)
    assert targets() == [
        f"-gencode=arch={code.replace('sm', 'compute')},code={code}" for code in expected
    ]


def test_code_for_later_gpus_may_be_asked_for(monkeypatch):
    monkeypatch.setenv(recipes.ARCHITECTURES_VARIABLE, "7.5 12.0+PTX")
    assert targets() == [
        "-gencode=arch=compute_75,code=sm_75",
        "-gencode=arch=compute_120,code=[sm_120,compute_120]",
    ]


def test_else_they_are_those_of_the_devices(monkeypatch):
    capabilities = [(9, 0), (8, 6), (9, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    assert recipes.architectures() == ["86", "90"]


def test_without_devices_a_list_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(recipes.MissingError, match="TORCH_CUDA_ARCH_LIST, as '8"):
        recipes.recipe_for("cuda")


@pytest.fixture
def no_nvcc(monkeypatch, tmp_path):
    """A machine without nvcc; the folder that pip installs to."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(recipes.sysconfig, "get_path", lambda name: str(tmp_path / "site"))
    return tmp_path / "site"


def make_nvcc(folder):
    folder.mkdir(parents=True)
    (folder / "nvcc").touch(mode=0o755)
    return str(folder / "nvcc")


def test_nvcc_is_found_on_the_path(no_nvcc):
    nvcc = make_nvcc(no_nvcc.parent / "bin")
    assert recipes.find_nvcc()[0] == nvcc


def test_nvcc_is_found_where_pip_puts_it(no_nvcc):
    nvcc = make_nvcc(no_nvcc / "nvidia" / "cu13" / "bin")
    assert recipes.find_nvcc() == [nvcc, f"-L{no_nvcc}/nvidia/cu13/lib"]


def test_a_toolkit_that_is_named_is_taken_or_missed(no_nvcc, monkeypatch, tmp_path):
    make_nvcc(no_nvcc.parent / "bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    with pytest.raises(recipes.MissingError, match=r"there is no nvcc .*toolkit/bin/nvcc"):
        recipes.find_nvcc()
    nvcc = make_nvcc(tmp_path / "toolkit" / "bin")
    assert recipes.find_nvcc()[0] == nvcc


def test_without_nvcc_one_is_asked_for(no_nvcc):
    with pytest.raises(recipes.MissingError, match=r"pip install 'skdiscovery\[cuda\]'"):
        recipes.find_nvcc()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_cuda_sources_compile_without_warnings_or_spills(monkeypatch, tmp_path):
    monkeypatch.setenv(recipes.ARCHITECTURES_VARIABLE, "8.0;9.0a+PTX")
    library = tmp_path / "kernels.so"
    command = recipes.recipe_for("cuda").command(library)
    strict = ["-Xptxas=-v,-warn-spills,-warn-lmem-usage", "-Werror=all-warnings"]
    done = subprocess.run([*command, *strict], capture_output=True, text=True)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert library.stat().st_size > 50_000
    assert "warning" not in printed.lower()
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", printed)
    assert len(spills) >= 36  # of three types, four works in two widths, and four for one thread
    assert set(spills) == {("0", "0")}


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor is asked otherwise")
def test_a_processor_is_known_by_its_instructions():
    known = recipes.processor()
    instructions = torch.backends.cpu.get_cpu_capability()
    assert ("avx2" in known) == instructions.startswith("AVX")
    assert "MHz" not in known  # which is another at each look
    assert recipes.processor() == known


def test_the_sources_are_those_of_the_package():
    cpp = recipes.recipe_for("cpp")
    assert {path.suffix for path in cpp.sources} == {".cpp"}
    assert cpp.command(Path("out.so"))[-2:] == ["-o", "out.so"]
    assert all(os.path.isabs(path) for path in cpp.sources)
