"""Downloads that arrive whole and checked, or not at all."""

import hashlib
import logging
import shutil
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from skdiscovery.data_folder import DATA_VARIABLE
from skdiscovery.files import whole_file

logger = logging.getLogger("skdiscovery")

# Seconds of silence after which a server counts as gone.
_TIMEOUT = 60.0


@dataclass(frozen=True)
class RemoteFile:
    """A published file: where it is, what to call it here, and how to know that it is intact."""

    url: str
    filename: str
    hash_name: str
    digest: str


class _TransferError(OSError):
    """What arrived is not the published file."""


# Another attempt may mend these; a full disk or a folder that is not ours stays what it is.
_WORTH_A_RETRY = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError, _TransferError)


def download(remote: RemoteFile, folder: Path, *, n_retries: int, delay: float) -> Path:
    """Download a file, check it, and only then give it its name.

    Parameters
    ----------
    remote : RemoteFile
        The file to download.
    folder : Path
        The folder in which ``remote.filename`` is stored; created where missing.
    n_retries : int
        How often to try again after a failure of the network, or a file that fails the check.
    delay : float
        Seconds between two attempts.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If no attempt brought the published file.
    """
    target = folder / remote.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        logger.info("Downloading %s to %s", remote.url, target)
        for n_left in reversed(range(n_retries + 1)):
            try:
                _transfer(remote, partial)
                break
            except _WORTH_A_RETRY as error:
                if isinstance(error, HTTPError):
                    error.close()  # It holds the connection open.
                if n_left == 0:
                    raise OSError(
                        f"Could not download {remote.url} ({n_retries + 1} attempts): {error}. "
                        "Try again later, or name a folder that has the data in the environment "
                        f"variable {DATA_VARIABLE}."
                    ) from error
                logger.warning("Retrying %s after a failure: %s", remote.url, error)
                time.sleep(delay)
    return target


def _transfer(remote: RemoteFile, path: Path) -> None:
    """Fetch a file once; raise if it is shorter than announced or not the one published."""
    with urlopen(remote.url, timeout=_TIMEOUT) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file)
        n_bytes = file.tell()
        n_expected = response.headers.get("Content-Length")
    if n_expected is not None and n_bytes != int(n_expected):
        raise _TransferError(f"the transfer ended after {n_bytes} of {n_expected} bytes")

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, remote.hash_name).hexdigest()
    if digest != remote.digest:
        raise _TransferError(
            f"expected a file of {remote.hash_name.upper()} {remote.digest}, got one of {digest}"
        )
