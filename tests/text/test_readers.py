import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery.text import json_list
from skdiscovery.text.readers import FORMATS, Reader

DOCUMENTS = [('Great, "really"!', 1), ("", 0), ("NA", None), ("Über\n2 lines", 5)]
CUT_SHORT = gzip.compress(b"{}" * 99, mtime=0)[:-9]
COMPRESSIONS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def as_json(documents, label_key="label"):
    return [{"sentence": text, label_key: label, "other": [1]} for text, label in documents]


def as_csv(documents, delimiter=","):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["other", "sentence", "label"])
    writer.writerows(["x", text, label] for text, label in documents)
    return out.getvalue()


def as_lines(documents):
    return "".join(json.dumps(record) + "\n" for record in as_json(documents))


WRITERS = {
    "csv": as_csv,
    "tsv": lambda documents: as_csv(documents, "\t"),
    "json": lambda documents: json.dumps(as_json(documents), indent=1),
    "loose.json": as_lines,
    "jsonl": as_lines,
}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read(*paths, **options):
    return list(Reader(**options).read(paths))


def normal(label):
    """A label as its text: CSV knows no other."""
    return None if label in (None, "") else str(label)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_plain_and_compressed(write, name, compression):
    content = WRITERS[name](DOCUMENTS).encode()
    path = write(f"reviews.{name}{compression}", COMPRESSIONS[compression](content))

    found = read(path, label_key="label")

    assert [text for text, _ in found] == [text for text, _ in DOCUMENTS]
    assert [normal(label) for _, label in found] == [normal(label) for _, label in DOCUMENTS]
    assert read(path) == [(text, None) for text, _ in DOCUMENTS]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_plain_text_is_a_document_per_line(write, compression):
    path = write(f"a.txt{compression}", COMPRESSIONS[compression]("one\n\nNA\r\nthré".encode()))
    assert read(path) == [("one", None), ("", None), ("NA", None), ("thré", None)]


@pytest.mark.parametrize("name", ["A.JSONL", "a.JsonL.gz", "a.jsonl.GZ"])
def test_extensions_are_known_in_any_case(write, name):
    content = as_lines(DOCUMENTS).encode()
    path = write(name, gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert read(path) == [(text, None) for text, _ in DOCUMENTS]


def test_blanks_at_the_end_of_a_line_are_text(write):
    assert read(write("a.txt", "one \n \n\ttwo\t")) == [
        ("one ", None),
        (" ", None),
        ("\ttwo\t", None),
    ]


def test_blank_lines_of_a_csv_file_are_no_records(write):
    path = write("a.csv", "sentence,label\none,1\n\ntwo,2\r\n\r\n\n")
    assert read(path, label_key="label") == [("one", "1"), ("two", "2")]


def test_a_label_of_json_is_what_it_is_there(write):
    labels = [0.5, 2, "good", True, None]
    path = write("a.jsonl", as_lines([("text", label) for label in labels]))
    assert [label for _, label in read(path, label_key="label")] == labels


@pytest.mark.parametrize("format", FORMATS)
def test_a_named_format_wins_over_the_extension(write, format):
    content = "one\n" if format == "txt" else WRITERS[format]([("one", 1)])
    assert read(write("reviews.data", content), format=format) == [("one", None)]


def test_documents_of_several_files_follow_each_other(write):
    paths = [
        write("b.txt", "1\n2\n"),
        write("a.csv", "sentence\n3\n"),
        write("c.json", '["", {"sentence": "4"}]'),
    ]
    assert [text for text, _ in read(*paths, errors="skip")] == ["1", "2", "3", "4"]


def test_a_byte_order_mark_is_no_text(write):
    for path in (
        write("a.csv", "\ufeffsentence\none\n"),
        write("a.json", '\ufeff[{"sentence": "one"}]'),
        write("a.txt", "\ufeffone"),
    ):
        for encoding in ("utf-8", "UTF8", "utf_8"):
            assert read(path, encoding=encoding) == [("one", None)]


def test_options_say_how_to_read(write):
    path = write("a.csv", "Text;Stars\nçà;5\n".encode("latin-1"))
    options = {"text_key": "Text", "label_key": "Stars", "delimiter": ";", "encoding": "latin-1"}
    assert read(path, **options) == [("çà", "5")]
    assert read(write("u.txt", "日本\nb".encode("utf-16")), encoding="utf-16")[0][0] == "日本"


@pytest.mark.parametrize(
    ("decode_error", "expected"), [("ignore", "ab"), ("replace", "a\N{REPLACEMENT CHARACTER}b")]
)
def test_undecodable_bytes_may_be_ignored_or_replaced(write, decode_error, expected):
    path = write("a.txt", b"a\xffb")
    assert read(path, decode_error=decode_error) == [(expected, None)]


def test_undecodable_bytes_are_refused_by_place(write):
    n = 2**19
    path = write("a.txt", "é\n".encode() * n + b"abc\xff\n")
    with pytest.raises(ValueError, match=rf"a.txt is not utf-8.*byte {3 * n + 3}, line {n + 1}\."):
        read(path)


@pytest.mark.parametrize(
    ("content", "where"), [(b"\xef\xbb\xbfab\xff", "byte 5, line 1"), (b"abc\xc3", "its end")]
)
def test_a_mark_before_and_a_cut_at_the_end_are_seen(write, content, where):
    with pytest.raises(ValueError, match=rf"a\.txt is not utf-8.* at {where}\."):
        read(write("a.txt", content))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_very_long_text_is_read(write, name):
    text = "long " * 200_000
    assert read(write(name, WRITERS[name[2:]]([(text, 1)]))) == [(text, None)]


def test_the_longest_field_of_csv_never_gets_shorter(write):
    before = csv.field_size_limit(2**30)
    try:
        read(write("a.csv", as_csv(DOCUMENTS)))
        assert csv.field_size_limit() == 2**30
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nx,1\n", r"a\.csv has no column 'sentence', found 'text', 'label'"),
        ("a.csv", "sentence\nx\n", r"a\.csv has no column 'label', found 'sentence'"),
        ("a.csv", "", r"a\.csv has no column 'sentence', found none"),
        ("a.csv", "sentence,label,sentence\nx,1,y\n", r"a\.csv has several columns 'sentence'"),
        ("a.csv", '"sentence', r"a\.csv, line 1: not CSV"),
        ("a.csv", 'sentence,label\n"x\ny",1\nx,1,2\n', r"a\.csv, line 4: 3 fields.* has 2"),
        ("a.csv", 'sentence,label\nx,1\n"x,2\ny,3\n', r"a\.csv, line 3: not CSV"),
        ("a.json", '[{"sentence": "x"}]', r"a\.json has no key 'label', found 'sentence'"),
        ("a.json", '\n[{"text": "x"}]', r"a\.json, line 2: no key 'sentence', found 'text'"),
        ("a.jsonl", '\n{"text": "x"}', r"a\.jsonl, line 2: no key 'sentence', found 'text'"),
        ("a.jsonl", '{"sentence": null}', r"a\.jsonl, line 1: the text 'sentence' is missing"),
        ("a.jsonl", '{"sentence": NaN}', r"line 1: the text 'sentence' is of type float"),
        ("a.jsonl", '{"sentence": "x", "label": []}', r"line 1: the label 'label' is of type list"),
        ("a.jsonl", '{"label": 1, "sentence": ""}\noops\n', r"a\.jsonl, line 2: not JSON"),
        ("a.jsonl", "[1]", r"line 1: expected an object with the key 'sentence', got list"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl, line 1: not JSON"),
        ("a.json", '[{"sentence": "x", "label": 1},\n\n oops]', r"a\.json, line 3: .* not JSON"),
        ("a.json", '[{"sentence": "x", "label": 1}\n', r"line 2: .*, got the end of the file"),
        ("a.json", '[{"sentence": "x"}\n{}]', r"line 2: not JSON: expected ',' or '\]', got '{'"),
        ("a.json", '[{"sentence": "x"},\n]', r"a\.json, line 2: .* not JSON"),
        ("a.json", '[{"sentence": "x"}]\n]', r"a\.json, line 2: .*after the end"),
        ("a.json", '[12', r"a\.json, line 1: .* not JSON: it is not closed"),
        ("a.json", "[]", r"no document in .*a\.json"),
        ("a.txt", "x", r"a\.txt is plain text: it has no labels"),
        ("a.xml", "x", r"format of .*a\.xml cannot be told"),
        ("a.jsonl.gz", CUT_SHORT, r"a\.jsonl\.gz is damaged or not complete"),
        ("a.jsonl.gz", b"{}", r"a\.jsonl\.gz is damaged"),
        ("a.jsonl.bz2", b"{}", r"a\.jsonl\.bz2 is damaged"),
        ("a.jsonl.xz", b"{}", r"a\.jsonl\.xz is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_place(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(name, content), label_key="label")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that fails")
def test_a_file_that_fails_while_it_is_read_is_named(tmp_path):
    # Opens, but has nothing at its first byte: as a disk does that breaks.
    (tmp_path / "a.txt").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=r"Input/output error: .*a\.txt"):
        read(tmp_path / "a.txt")


def test_bad_records_are_skipped_and_counted_once(write, caplog):
    good = '{"sentence": "x"}\n'
    bad = 'oops\n{"text": "x"}\n{"sentence": null}\n'
    paths = [write("a.jsonl", good + bad + good), write("b.csv", "sentence\n1\n1,2\n")]

    with caplog.at_level(logging.WARNING, logger="skdiscovery"):
        found = read(*paths, errors="skip")

    assert [text for text, _ in found] == ["x", "x", "1"]
    (record,) = caplog.records
    assert record.getMessage().startswith("Skipped 4 of 7 records. The first: ")
    assert "a.jsonl, line 2: not JSON" in record.getMessage()


@pytest.mark.parametrize("label_key", [None, "label"])
def test_keys_are_not_kept_where_no_label_is_sought(tmp_path, label_key):
    path = tmp_path / "reviews.jsonl"
    record = {"sentence": "Good.", "label": 1}
    lines = (json.dumps(record | {f"key {k:0100}": 1}) for k in range(20_000))
    path.write_text("\n".join(lines))
    tracemalloc.start()
    assert sum(1 for _ in Reader(label_key=label_key).read([path])) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6


def test_skipping_everything_is_an_error(write):
    with pytest.raises(ValueError, match=r"no document in .*no key 'txt', found 'sentence'"):
        read(write("a.jsonl", '{"sentence": "x"}\n'), text_key="txt", errors="skip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "format='xml': expected one of"),
        ({"decode_error": "no"}, "decode_error='no': expected one of"),
        ({"errors": "no"}, "errors='no': expected one of"),
        ({"delimiter": "::"}, "delimiter='::': expected a string of one character"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Reader(**options)


@pytest.mark.parametrize(
    ("encoding", "why"), [("utf-9", "unknown encoding"), ("hex", "not a text encoding")]
)
def test_an_unknown_encoding_is_refused(encoding, why):
    with pytest.raises(ValueError, match=rf"encoding='{encoding}': .*{why}"):
        Reader(encoding=encoding)


@pytest.mark.parametrize("block", [1, 2, 7, 1000])
def test_a_json_list_is_the_same_whatever_the_buffer(monkeypatch, block):
    monkeypatch.setattr(json_list, "BLOCK", block)
    values = [123456, 'a,b]\\"', {"k": [1, {"x": "😀"}]}, [], None, True, -1.5e10, "é"]

    for indent in (None, 3):
        text = json.dumps(values, indent=indent)
        items = list(json_list.JSONList(io.StringIO(text)))
        assert [item for _, item in items] == values
    lines = text.splitlines()
    assert all(lines[line - 1].strip()[0] == json.dumps(item)[0] for line, item in items)


def test_a_damaged_json_list_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(json_list, "BLOCK", 10)
    monkeypatch.setattr(json_list, "LONGEST_RECORD", 100)
    file = io.StringIO('[1, {"x": oops' + " " * 10_000)
    with pytest.raises(json_list.NotJSONListError, match="line 1"):
        list(json_list.JSONList(file))
    assert file.tell() < 1000


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=8), st.sampled_from(list(WRITERS)))
def test_any_text_comes_back(tmp_path_factory, texts, name):
    path = tmp_path_factory.mktemp("any") / f"a.{name}"
    path.write_bytes(WRITERS[name]([(text, 1) for text in texts]).encode())
    assert [text for text, _ in read(path)] == texts


LINES = ['{"sentence": "a\\u00e9", "label": 1}', '{"sentence": null}', "[1, 2]", '"a"', "", "nan"]
OPENING = ["[", '{"sentence": "a"}', ",", "]", '{"sentence":', "{", '"', "\\", "\n", "1e999", "-"]
CELLS = ["sentence", "label", ",", '"', '""', "\t", "\n", "\r\n", "a", "\x00", "é", "\ufeff", "'"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.fuzz
@given(st.data())
def test_any_file_gives_documents_or_an_error_that_names_it(folder, damaged, data):
    name = data.draw(st.sampled_from([*WRITERS, "txt"]))
    compression = data.draw(st.sampled_from(list(COMPRESSIONS)))
    errors = data.draw(st.sampled_from(["raise", "skip"]))
    decode_error = data.draw(st.sampled_from(["strict", "ignore", "replace"]))
    label_key = data.draw(st.sampled_from([None, "label"]))
    whole = WRITERS.get(name, as_lines)(DOCUMENTS).encode()
    content = data.draw(
        st.binary(max_size=100)
        | damaged(whole)
        | st.lists(st.sampled_from(LINES)).map("\n".join).map(str.encode)
        | st.lists(st.sampled_from(OPENING)).map("".join).map(str.encode)
        | st.lists(st.sampled_from(CELLS)).map("".join).map(str.encode)
    )
    packed = COMPRESSIONS[compression](content)
    if compression:
        packed = data.draw(st.just(packed) | damaged(packed))
    path = folder / f"a.{name}{compression}"
    path.write_bytes(packed)
    options = {"label_key": label_key, "errors": errors, "decode_error": decode_error}
    problem = ""
    try:
        documents = read(path, **options)
    except ValueError as error:
        problem = str(error)
    if problem:
        assert str(path) in problem
    else:
        assert documents
        assert all(isinstance(text, str) for text, _ in documents)


@pytest.mark.parametrize("number", ["123", "-1.5", "1e-5", "1E+5", "12.5e10", "0.5E2"])
def test_a_number_is_whole_wherever_the_buffer_ends(monkeypatch, number):
    for block in range(1, 12):
        monkeypatch.setattr(json_list, "BLOCK", block)
        for text in (f"[{number}]", f"[ {number}, {number}\n]"):
            items = list(json_list.JSONList(io.StringIO(text)))
            assert {item for _, item in items} == {float(number)}


def test_blanks_of_every_kind_may_stand_between(write):
    text = '\t[\r\n\t{"sentence":\t"x"}\t,\r{"sentence": "y"}\r\n \t]\r\n\t '
    assert read(write("a.json", text)) == [("x", None), ("y", None)]


def test_a_list_too_deep_is_refused_by_place(write):
    with pytest.raises(ValueError, match=r"a\.json, line 1: .* not JSON"):
        read(write("a.json", "[" * 100_000))


def test_an_empty_list_may_have_blanks_in_it():
    assert list(json_list.JSONList(io.StringIO(" [ \n ] "))) == []


def test_a_problem_is_told():
    with pytest.raises(json_list.NotJSONListError, match="not JSON: Expecting value"):
        list(json_list.JSONList(io.StringIO("[oops]")))


def test_a_buffer_grows_with_the_item_in_it(monkeypatch):
    monkeypatch.setattr(json_list, "BLOCK", 1)
    file = io.StringIO(json.dumps(["x" * 10_000]))
    sizes = []
    read_some = file.read
    monkeypatch.setattr(file, "read", lambda n: sizes.append(n) or read_some(n), raising=False)
    list(json_list.JSONList(file))
    assert len(sizes) < 30
