"""A corpus of bytes: every document of a collection, end to end, in memory or on disk."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from sklearn.utils import check_random_state

from skdiscovery.text.building import PathLike, Recipe, build, load, remove_with
from skdiscovery.text.documents import encode_documents
from skdiscovery.text.preprocessing import Preprocessor
from skdiscovery.text.readers import Reader
from skdiscovery.text.splitting import Proportions, normalized_proportions, part_sizes


class TextCorpus:
    r"""Documents as one array of bytes, with the offsets at which they start.

    ``corpus[3]`` is a document as bytes; ``corpus[:10]`` and ``corpus[[3, 1]]`` are corpora that
    share the bytes of this one. A corpus from a file is memory-mapped: it may be larger than
    memory, and its pickle is the path of its folder, not its bytes.

    Parameters
    ----------
    data : ndarray of shape (n_bytes,), dtype uint8
        The preprocessed documents, one after the other.
    offsets : ndarray of shape (n_documents + 1,), dtype int64
        Document ``i`` is ``data[offsets[i]:offsets[i + 1]]``.
    labels : ndarray of shape (n_documents,), default=None
        A label per document, where there are labels.
    preprocessor : {"review", "openai", "nvidia"}, default=None
        What made the bytes out of texts, which a model that reads them checks; None where no name
        says it.

    Examples
    --------
    >>> from skdiscovery import TextCorpus
    >>> corpus = TextCorpus.from_documents(["Great!", "Awful."], labels=[1, 0])
    >>> len(corpus), corpus.n_bytes, corpus[1]
    (2, 18, b'\n Awful. ')
    """

    def __init__(
        self,
        data: np.ndarray,
        offsets: np.ndarray,
        labels: np.ndarray | None = None,
        preprocessor: str | None = None,
    ):
        self.preprocessor = preprocessor
        self._data = data
        self._offsets = offsets
        self._labels = labels
        self._chosen: np.ndarray | None = None  # the documents of a part; None: all of them
        self._folder: Path | None = None  # where all this lies on disk; None: in memory

    @classmethod
    def from_documents(
        cls,
        docs: Any,
        labels: Any = None,
        *,
        preprocessor: str | Preprocessor | None = "review",
    ) -> "TextCorpus":
        """Build a corpus in memory.

        Parameters
        ----------
        docs : iterable of str or bytes, or Series
            The documents.
        labels : array-like of shape (n_documents,), default=None
            A label per document.
        preprocessor : {"review", "openai", "nvidia"}, callable or None, default="review"
            How a text becomes bytes.

        Returns
        -------
        TextCorpus

        Raises
        ------
        ValueError
            If the numbers of labels and documents differ, or a document is missing.
        TypeError
            If a document is neither ``str`` nor ``bytes``.
        """
        encoded = encode_documents(docs, preprocessor)
        if labels is not None:
            labels = np.asarray(labels)
            if labels.shape != (len(encoded),):
                raise ValueError(
                    f"Expected a label for each of {len(encoded)} documents, got labels of shape "
                    f"{labels.shape}."
                )
        data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        offsets = document_offsets([len(document) for document in encoded])
        return cls(data, offsets, labels, _name(preprocessor))

    @classmethod
    def from_file(
        cls,
        path_or_paths: PathLike | Iterable[PathLike],
        *,
        text_key: str = "sentence",
        label_key: str | None = None,
        format: str = "auto",
        delimiter: str = ",",
        preprocessor: str | Preprocessor | None = "review",
        encoding: str = "utf-8",
        decode_error: str = "strict",
        errors: str = "raise",
        drop_unlabeled: bool = False,
        binarize_labels: bool = False,
        cache_dir: PathLike | None = None,
    ) -> "TextCorpus":
        r"""Open the documents of one file or several as a corpus on disk.

        The first call reads the files, once and piece by piece; later ones open what it left in
        ``cache_dir``, unless a file or an option changed. Folders there may be removed any time.

        Parameters
        ----------
        path_or_paths : str, path-like, or iterable of these
            The files, each of its own format and plain or compressed (.gz, .bz2, .xz). Their
            documents follow each other in this order.
        text_key : str, default="sentence"
            The column (CSV, TSV) or the key (JSON) of the text. An empty text is a text.
        label_key : str, default=None
            The column or key of the label; None for a corpus without labels.
        format : {"auto", "csv", "tsv", "json", "jsonl", "txt"}, default="auto"
            "auto" goes by the extension. "csv" and "tsv" have a header; "tsv" is "csv" with tabs.
            "json" is a list of objects, or an object per line; "jsonl" is the latter. "txt" is a
            document per line, empty lines too.
        delimiter : str, default=","
            What separates the columns of CSV files.
        preprocessor : {"review", "openai", "nvidia"}, callable or None, default="review"
            How a text becomes bytes. With a function the corpus is not kept: it is built in a
            temporary folder that goes with it.
        encoding : str, default="utf-8"
            The encoding of the files.
        decode_error : {"strict", "ignore", "replace"}, default="strict"
            What to do with bytes that ``encoding`` does not allow; "strict" is an error.
        errors : {"raise", "skip"}, default="raise"
            What to do with a record without a text: a line that is not JSON, an object without
            the key, a null, a row of another number of columns. "skip" goes on and logs how many.
        drop_unlabeled : bool, default=False
            Whether to leave out the documents whose label is missing.
        binarize_labels : bool, default=False
            Whether labels become 1 above the middle of their range, else 0. Missing ones stay
            missing, and labels that are all the same stay as they are.
        cache_dir : str or path-like, default=None
            Where corpora are kept, by default the folder ``skdiscovery/corpora`` in
            :func:`sklearn.datasets.get_data_home`.

        Returns
        -------
        TextCorpus
            Its ``labels`` are numbers if all read as numbers, else strings; missing ones (no key,
            null, an empty cell, "NA", "NaN") are -1 or "".

        Raises
        ------
        ValueError
            If an option is not allowed, or a file is not as the options say; the message names
            the file and the line, and what was found instead.
        OSError
            If a file cannot be read or changes meanwhile, or the corpus cannot be written.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from skdiscovery import TextCorpus
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "reviews.csv"
        ...     _ = path.write_text('sentence,stars\nGreat!,5\nAwful.,1\n"So, so.",\n')
        ...     corpus = TextCorpus.from_file(path, label_key="stars", cache_dir=folder)
        >>> corpus[2], corpus.labels
        (b'\n So, so. ', array([ 5,  1, -1]))
        """
        reader = Reader(
            text_key=text_key,
            label_key=label_key,
            format=format,
            delimiter=delimiter,
            encoding=encoding,
            decode_error=decode_error,
            errors=errors,
        )
        recipe = Recipe.of(path_or_paths, reader, preprocessor, drop_unlabeled, binarize_labels)
        folder = build(recipe, cache_dir)
        corpus = cls._open(folder, _name(preprocessor))
        if not recipe.can_be_kept:
            remove_with(corpus._data, folder)
        return corpus

    @classmethod
    def _open(
        cls, folder: Path, preprocessor: str | None, chosen: np.ndarray | None = None
    ) -> "TextCorpus":
        corpus = cls(*load(folder), preprocessor)
        corpus._folder, corpus._chosen = folder, chosen
        return corpus

    @property
    def labels(self) -> np.ndarray | None:
        """A label per document; None if there are none."""
        if self._labels is None or self._chosen is None:
            return self._labels
        return self._labels[self._chosen]

    @property
    def offsets(self) -> np.ndarray:
        """Where each document starts when all follow each other end to end, and the end."""
        if self._chosen is None:
            return self._offsets
        starts, stops = self._bounds()
        return document_offsets(stops - starts)

    @property
    def n_bytes(self) -> int:
        """Number of bytes of all documents together."""
        return int(self.offsets[-1])

    def split(
        self,
        proportions: Proportions = (1000, 1, 1),
        random_state: int | np.random.RandomState | None = None,
    ) -> list["TextCorpus"]:
        """Split the documents at random, for example for training, validation and test.

        Parameters
        ----------
        proportions : tuple of float, float or str, default=(1000, 1, 1)
            The parts' shares, which need not add up to 1; a string has "," or "/" between them.
            If they add up to less than 1, the remainder is one more part: ``".8,.1"`` has three.
        random_state : int, RandomState instance or None, default=None
            Decides which document goes where.

        Returns
        -------
        list of TextCorpus
            One for each share, with each document in one of them, in the old order. A part is
            empty if and only if its share is 0.

        Raises
        ------
        ValueError
            If the proportions are not numbers, or are more than the documents.

        Examples
        --------
        >>> from skdiscovery import TextCorpus
        >>> corpus = TextCorpus.from_documents(map(str, range(10)))
        >>> [len(part) for part in corpus.split((8, 1, 1), random_state=0)]
        [8, 1, 1]
        """
        sizes = part_sizes(len(self), normalized_proportions(proportions))
        order = check_random_state(random_state).permutation(len(self))
        # Sorted, so that each part is read from front to back.
        return [self[np.sort(chosen)] for chosen in np.split(order, np.cumsum(sizes)[:-1])]

    def shards(self, n: int) -> list["TextCorpus"]:
        """Cut the corpus into ``n`` of consecutive documents.

        Returns
        -------
        list of TextCorpus
            Their numbers of documents differ by one at most.

        Raises
        ------
        ValueError
            If ``n`` is less than 1, or more than the documents.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"{len(self)} documents cannot be cut into {n} shards.")
        edges = [len(self) * i // n for i in range(n + 1)]
        return [self[start:stop] for start, stop in pairwise(edges)]

    def fingerprint(self) -> str:
        """Return a hash of all documents, as a string of hexadecimal digits."""
        digest = sha256(self.offsets.data)
        starts, stops = self._bounds()
        # Documents that lie side by side are hashed in one go.
        firsts = starts[starts != np.append(-1, stops[:-1])]
        lasts = stops[stops != np.append(starts[1:], -1)]
        for start, stop in zip(firsts, lasts, strict=True):
            digest.update(self._data[start:stop].data)
        return digest.hexdigest()

    @property
    def shape(self) -> tuple[int]:
        """The number of documents; by its shape scikit-learn's splitters know what to index."""
        return (len(self),)

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where in the data each document starts, and where it stops."""
        if self._chosen is None:
            return self._offsets[:-1], self._offsets[1:]
        return self._offsets[self._chosen], self._offsets[self._chosen + 1]

    def __len__(self) -> int:
        return len(self._offsets) - 1 if self._chosen is None else len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> "TextCorpus": ...
    def __getitem__(self, index: Any) -> "bytes | TextCorpus":
        """Return one document as bytes, or several (a slice, an array) as a corpus."""
        if isinstance(index, tuple):  # as scikit-learn's splitters index arrays: (rows, ...)
            index, _ = index
        if isinstance(index, (int, np.integer)):
            i = range(len(self))[index]
            if self._chosen is not None:
                i = self._chosen[i]
            return self._data[self._offsets[i] : self._offsets[i + 1]].tobytes()
        everything = np.arange(len(self)) if self._chosen is None else self._chosen
        part = TextCorpus(self._data, self._offsets, self._labels, self.preprocessor)
        part._folder, part._chosen = self._folder, everything[index]
        return part

    def __iter__(self) -> Iterator[bytes]:
        for start, stop in zip(*self._bounds(), strict=True):
            yield self._data[start:stop].tobytes()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path of what is on disk; of what is in memory, no more than is needed."""
        if self._folder is not None:
            return TextCorpus._open, (self._folder, self.preprocessor, self._chosen)
        data, offsets = self._data, self.offsets
        if self._chosen is not None:
            data = np.frombuffer(b"".join(self), np.uint8)
        return TextCorpus, (data, offsets, self.labels, self.preprocessor)


def _name(preprocessor: str | Preprocessor | None) -> str | None:
    return preprocessor if isinstance(preprocessor, str) else None


def document_offsets(lengths: Any) -> np.ndarray:
    """Return where documents of these lengths start end to end, and the end."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
