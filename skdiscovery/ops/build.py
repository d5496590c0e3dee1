"""Build the compiled kernels ahead of time: ``python -m skdiscovery.ops.build``."""

import argparse
from pathlib import Path

from skdiscovery.ops import extension, recipes


def main() -> None:
    """Build a library, and print its path."""
    parser = argparse.ArgumentParser(
        prog="python -m skdiscovery.ops.build",
        description="Build skdiscovery's kernels for this machine, and print where they are.",
    )
    parser.add_argument(
        "--backend",
        choices=("cpp", "cuda"),
        default="cpp",
        help="for this CPU (the default), or for the GPUs that are here or, if set, in "
        f"the environment variable {recipes.ARCHITECTURES_VARIABLE}",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=extension.PREBUILT,
        help="where to put it (default: inside the package). Kernels are looked for there and in "
        "the user's cache, nowhere else",
    )
    options = parser.parse_args()
    try:
        print(extension.build(recipes.recipe_for(options.backend), options.folder))
    except (RuntimeError, OSError) as error:
        parser.exit(1, f"The kernels cannot be built: {error}\n")


if __name__ == "__main__":
    main()
