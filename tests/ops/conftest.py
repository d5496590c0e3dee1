import os

# What cuBLAS needs to be deterministic; it is read when it is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch

from skdiscovery.ops import extension, recipes


@pytest.fixture(scope="session")
def cuda_kernels_on_cpu(tmp_path_factory):
    """The sources of the CUDA kernels, compiled as plain loops for the CPU, and loaded."""
    recipe = recipes.Recipe(
        "cuda_on_cpu",
        tuple(recipes.SOURCES.glob("*.cu")),
        (*recipes.FLAGS_FOR_CPP, "-x", "c++"),
        (recipes.processor(),),
        recipes.find_cpp_compiler,
    )
    # All test processes of a run share the folder above theirs, and one of them builds.
    folder = tmp_path_factory.getbasetemp().parent / "kernels"
    torch.ops.load_library(extension.build(recipe, folder))
