"""Build the compiled kernels ahead of time: ``python -m skdiscovery.ops.build``."""

import argparse
from pathlib import Path

from skdiscovery.ops import extension


def main() -> None:
    """Build the library, and print its path."""
    parser = argparse.ArgumentParser(
        prog="python -m skdiscovery.ops.build",
        description="Build skdiscovery's kernels for this machine, and print where they are.",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=extension.PREBUILT,
        help="where to; looked for is in the package (the default) and in the user's cache",
    )
    try:
        print(extension.build(parser.parse_args().folder))
    except (extension.MissingError, OSError) as error:
        parser.exit(1, f"The kernels cannot be built: {error}\n")


if __name__ == "__main__":
    main()
