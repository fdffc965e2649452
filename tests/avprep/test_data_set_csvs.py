"""AudioSet's and VGGSound's CSVs as people have them: handled right, or refused with the line."""

from __future__ import annotations

import csv
import gc
import gzip
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_from_names, read_label_csv
from avprep.manifest.make import make_audioset_manifest
from avprep.manifest.sources.audioset import read_audioset
from avprep.manifest.sources.listing import read_listing
from avprep.manifest.sources.rows import CsvNotes
from avprep.manifest.sources.vggsound import read_vggsound
from avprep.options import AudioSetOptions, ManifestOutput, Sources

CLASSES = LabelSet(
    ("/m/09x0r", "/m/05zppz", "/t/dd00088", "/m/twin1", "/m/twin2"),
    ("Speech", "Male speech, man speaking", "Gush", "Twin", "Twin"),
)
SPREADSHEET = (
    "is what a spreadsheet makes of an id that begins with '-' or '='. The id is lost: get the CSV "
    "again, and do not save it from a spreadsheet"
)
NUMBER = SPREADSHEET.replace("begins with '-' or '='", "looks like a number")


def audioset_of(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "segments.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    data_set = read_audioset(path, CLASSES)
    rows = [*data_set.segments.rows, *(row for row, _ in data_set.segments.repeated)]
    return [(*row[1:4], ",".join(row.labels)) for row in sorted(rows)], data_set.notes


def vggsound_of(tmp_path, text, labels=None):
    path = tmp_path / "vggsound.csv"
    path.write_text(text)
    data_set = read_vggsound(path, labels)
    rows = [(*row[1:4], *row.labels, row.split) for row in data_set.segments.rows]
    return rows, data_set.notes, data_set.labels


PUBLISHED = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 50.000, 60.000, "/m/05zppz"
0_8-g2rof7E, 0.000, 10.000, "/t/dd00088"
"""
ROWS = [
    ("--PJHxphWEs", 30.0, 40.0, "/m/09x0r,/t/dd00088"),
    ("--ZhevVpy1s", 50.0, 60.0, "/m/05zppz"),
    ("0_8-g2rof7E", 0.0, 10.0, "/t/dd00088"),
]


def through_a_spreadsheet(text):
    """Opened as plain commas and saved: quotes are doubled, rows are padded, numbers shortened."""
    rows = [line.split(",") for line in text.splitlines()]
    width = max(map(len, rows))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    for row in rows:
        cells = [cell.replace(".000", "") for cell in row]
        writer.writerow([*cells, *[""] * (width - len(cells))])
    return out.getvalue()


MANGLED = {
    "as published": PUBLISHED,
    "byte order mark": "\ufeff" + PUBLISHED,
    "Windows line ends": PUBLISHED.replace("\n", "\r\n"),
    "no last line end": PUBLISHED.rstrip("\n"),
    "gzip": gzip.compress(PUBLISHED.encode()),
    "UTF-16": PUBLISHED.encode("utf-16"),
    "no spaces": PUBLISHED.replace(", ", ","),
    "more spaces": PUBLISHED.replace(", ", " ,   ").replace("--P", "  --P"),
    "empty lines": PUBLISHED.replace("\n", "\n\n"),
    "lines of commas": PUBLISHED.replace("\n", "\n,,,,\n"),
    "decimal commas": PUBLISHED.replace(", ", ";").replace(".000", ",000"),
    "trailing commas": PUBLISHED.replace("\n", ",,,\n"),
    "no comments": PUBLISHED.split("labels\n", 1)[1],
    "header that is no comment": PUBLISHED.replace("# YTID", "YTID"),
    "every cell quoted": PUBLISHED.replace(", ", '","').replace('""', '"'),
    "lost quotes": PUBLISHED.replace('"', ""),
    "quotes kept by a naive reader": through_a_spreadsheet(PUBLISHED),
    "each row one cell": "\n".join(
        '"' + line.replace('"', '""') + '"' for line in PUBLISHED.splitlines()
    ),
    "display names": PUBLISHED.replace("/m/09x0r", "Speech").replace(
        "/m/05zppz", "Male speech, man speaking"
    ),
    "display names without case": PUBLISHED.replace("/m/09x0r", "speech"),
    "labels repeated": PUBLISHED.replace("/m/09x0r,", "/m/09x0r,/m/09x0r,"),
    "space after the quote": PUBLISHED.replace('"\n', '" ,,\n'),
    "spaces in the labels": PUBLISHED.replace("/m/09x0r,", " /m/09x0r , "),
    "an empty label": PUBLISHED.replace("/m/09x0r,", "/m/09x0r,,"),
}


@pytest.mark.parametrize("name", MANGLED)
def test_a_segments_csv_is_read_whatever_was_done_to_it(name, tmp_path):
    text = MANGLED[name]
    # Every cell quoted: the row begins with a quote too.
    if name == "every cell quoted":
        text = "\n".join(line if line[0] == "#" else f'"{line}' for line in text.splitlines())
    rows, notes = audioset_of(tmp_path, text)
    assert rows == ROWS
    assert notes.bad == []


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("as published", []),
        (
            "lost quotes",
            ["the quotes around the labels were lost, and were restored: 1 row (line 4)"],
        ),
        (
            "display names",
            ["classes are named by display name, and were looked up: 2 rows (line 4, 5)"],
        ),
    ],
)
def test_what_was_put_right_is_noted(name, note, tmp_path):
    _, notes = audioset_of(tmp_path, MANGLED[name])
    assert notes.lines("s.csv") == [f"s.csv: {text}" for text in note]


BAD_ROWS = {
    '#NAME?, 30.000, 40.000, "/m/09x0r"': f"'#NAME?' {SPREADSHEET}",
    '"#NAME?",30,40,/m/09x0r': f"'#NAME?' {SPREADSHEET}",
    "#REF!,30,40,/m/09x0r": f"'#REF!' {SPREADSHEET}",
    "1.23E+10,30,40,/m/09x0r": f"'1.23E+10' {NUMBER}",
    '"1,23E+10",30,40,/m/09x0r': f"'1,23E+10' {NUMBER}",
    "-1.5E-7,30,40,/m/09x0r": f"'-1.5E-7' {NUMBER}",
    ',30,40,"/m/09x0r"': "has no id",
    'a/b,30,40,"/m/09x0r"': "'a/b' cannot be a video's id, because no file can have that name",
    '  ,30,40,"/m/09x0r"': "has no id",
    "a": "expected YTID, start_seconds, end_seconds, \"mid,mid,…\", found 'a'",
    "a,30": "expected YTID, start_seconds, end_seconds, \"mid,mid,…\", found 'a,30'",
    "a,30,40": "has no labels",
    'a,30,40,""': "has no labels",
    'a,30,40,",,"': "has no labels",
    'a,x,40,"/m/09x0r"': "the start must be seconds, found 'x'",
    'a,,40,"/m/09x0r"': "the start must be seconds, found ''",
    'a,-1,40,"/m/09x0r"': "the start must be seconds, found '-1'",
    'a,nan,40,"/m/09x0r"': "the start must be seconds, found 'nan'",
    'a,1_0,40,"/m/09x0r"': "the start must be seconds, found '1_0'",
    'a,30,inf,"/m/09x0r"': "the end must be seconds, found 'inf'",
    'a,30,0:40,"/m/09x0r"': "the end must be seconds, found '0:40'",
    'a,40,40,"/m/09x0r"': "the end, 40 s, does not come after the start, 40 s",
    'a,30,000,40,000,"/m/09x0r"': "the end, 0 s, does not come after the start, 30 s",
    'a,30,40,"/m/09x0r': (
        "a quote is never closed; the file may be cut short: 'a,30,40,\"/m/09x0r'"
    ),
    'a,30,40,"/m/09x0r"x': "text follows a closing quote: 'a,30,40,\"/m/09x0r\"x'",
    'a,30,40,"/m/09x0r,/m/nope"': (
        "unknown label '/m/nope': neither mid nor name of the 5 classes"
    ),
    'a,30,40,"/m/09x0q"': (
        "unknown label '/m/09x0q': neither mid nor name of the 5 classes, did you mean '/m/09x0r'?"
    ),
    'a,30,40,"Male speech, man"': (
        "unknown label 'Male speech': neither mid nor name of the 5 classes, "
        "did you mean 'Male speech, man speaking'?"
    ),
    'a,30,40,"Twin"': "unknown label 'Twin': neither mid nor name of the 5 classes, did you mean "
    "'Twin'?",
    'a;30;40;"/m/09x0r"': ("has semicolons between its fields, not commas: 'a;30;40;\"/m/09x0r\"'"),
    "a\t30\t40\t/m/09x0r": "has tabs between its fields, not commas: 'a\\t30\\t40\\t/m/09x0r'",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_refused_with_line_and_reason(row, tmp_path):
    good = 'bbbbbbbbbbb, 1.000, 2.000, "/m/09x0r"\n'
    rows, notes = audioset_of(tmp_path, f"# comment\n{good}\n{row}\n{good}")
    assert len(rows) == 2
    assert notes.bad == [(4, BAD_ROWS[row])]
    with pytest.raises(UserError) as caught:
        notes.refuse_bad_rows("s.csv")
    assert str(caught.value) == (
        f"s.csv: line 4: {BAD_ROWS[row]}. To leave bad rows out and list them in the report, give "
        "--bad-rows skip."
    )


def test_many_bad_rows_are_counted_and_the_first_explained(tmp_path):
    _, notes = audioset_of(tmp_path, "#NAME?,1,2,/m/09x0r\n" * 9)
    with pytest.raises(
        UserError, match=r"line 1: '#NAME\?'.* 8 more bad rows: line 2, 3, 4, 5, 6, …"
    ):
        notes.refuse_bad_rows("s.csv")


@pytest.mark.parametrize(
    "text", ["", "# only\n# comments\n", "\n\n", ",,,\n", "YTID,start,end,mid\n"]
)
def test_a_csv_without_a_row_is_refused(text, tmp_path):
    with pytest.raises(UserError, match=r"segments.csv: has no rows. Is it truncated"):
        audioset_of(tmp_path, text)


def test_ids_of_another_length_than_the_others_are_noted(tmp_path):
    """A spreadsheet makes 12345678 of 00012345678: nothing says so but its length."""
    _, notes = audioset_of(tmp_path, PUBLISHED + "12345678,30,40,/m/09x0r\n")
    (note,) = notes.lines("s.csv")
    assert note == "s.csv: ids that are not 11 characters long, as YouTube's are: 1 row (line 7)"


ID = st.text("ABCxyz019-_", min_size=11, max_size=11)
SEGMENTS = st.lists(
    st.tuples(
        ID,
        st.integers(0, 3600),
        st.integers(1, 10),
        st.lists(st.sampled_from(CLASSES.mids), min_size=1, max_size=3, unique=True),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda segment: segment[:3],  # a segment named twice has the labels of both
)


@given(segments=SEGMENTS, data=st.data())
def test_no_combination_of_manglings_changes_a_row(segments, data, tmp_path_factory):
    draw = data.draw
    labels_sep, space = draw(st.sampled_from([",", ", "])), draw(st.sampled_from([", ", ","]))
    quote = draw(st.sampled_from(['"', ""]))
    decimals = draw(st.sampled_from(["", ".0", ".000"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    tail = draw(st.sampled_from(["", ",,", " "]))
    lines = [
        space.join((video_id, f"{start}{decimals}", f"{start + length}{decimals}", ""))
        + f"{quote}{labels_sep.join(mids)}{quote}{tail}"
        for video_id, start, length, mids in segments
    ]
    text = end.join(["# a comment", *lines]) + draw(st.sampled_from(["", end]))
    raw = text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])))
    if draw(st.booleans()):
        text = through_a_spreadsheet(text)
        raw = text.encode()
    if draw(st.booleans()):
        raw = gzip.compress(raw)
    rows, notes = audioset_of(tmp_path_factory.mktemp("a"), raw)
    assert notes.bad == []
    assert rows == [(i, s, s + n, ",".join(mids)) for i, s, n, mids in segments]


FRAGMENTS = st.lists(
    st.sampled_from(
        [*'",;#\t\n\r ', '""', "#NAME?", "/m/09x0r", "Speech", "-abc", "30", "30.5", "1E+5", "nan",
         "train", "x_000030.mp4", "path", "label", "labels", "naïve", "\ufeff"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(text=FRAGMENTS | st.text(max_size=60))
def test_any_text_is_read_or_refused_with_its_line(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("f") / "t.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for read in (
        lambda: read_audioset(path, CLASSES).notes,
        lambda: read_vggsound(path, None).notes,
        lambda: read_vggsound(path, CLASSES).notes,
        lambda: read_listing(path, None).notes,
        lambda: read_listing(path, CLASSES).notes,
        lambda: read_label_csv(path) and CsvNotes(),
    ):
        try:
            notes = read()
        except UserError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017 (it may also succeed)
        else:
            assert all(line >= 1 and reason for line, reason in notes.bad)


VGG = 'aaaaaaaaaaa,30,dog barking,train\nbbbbbbbbbbb,0,"heart sounds, heartbeat",test\n'
VGG_ROWS = [
    ("aaaaaaaaaaa", 30.0, 40.0, "dog barking", "train"),
    ("bbbbbbbbbbb", 0.0, 10.0, "heart sounds_ heartbeat", "test"),
]
VGG_MANGLED = {
    "as published": (VGG, True),
    "header": ("ytid,start,label,split\n" + VGG, True),
    "comment": ("# from the authors\n" + VGG, True),
    "lost quotes": (VGG.replace('"', ""), True),
    "Windows line ends and padding": (VGG.replace("\n", ",,\r\n"), True),
    "spaces": (VGG.replace(",", ", "), True),
    "split in capitals": (VGG.replace("train", "Train"), True),
    "decimals": (VGG.replace("30", "30.0"), True),
    "no split": (VGG.replace(",train", "").replace(",test", ""), False),
    "old release": ('aaaaaaaaaaa_000030.mp4,dog barking\nbbbbbbbbbbb_000000.mp4,'
                    '"heart sounds, heartbeat"\n', False),
    "old release without suffix": ("aaaaaaaaaaa_000030,dog barking\nbbbbbbbbbbb_000000,"
                                   '"heart sounds, heartbeat"\n', False),
    "old release, lost quotes": ("aaaaaaaaaaa_000030.mp4,dog barking\nbbbbbbbbbbb_000000.mp4,"
                                 "heart sounds, heartbeat\n", False),
}  # fmt: skip


@pytest.mark.parametrize("name", VGG_MANGLED)
@pytest.mark.parametrize("given_labels", [False, True])
def test_a_vggsound_csv_of_any_release_is_read(name, given_labels, tmp_path):
    text, has_split = VGG_MANGLED[name]
    names = ["heart sounds, heartbeat", "dog barking"]
    known = label_set_from_names(names) if given_labels else None
    rows, notes, labels = vggsound_of(tmp_path, text, known)
    assert rows == [row if has_split else (*row[:4], "") for row in VGG_ROWS]
    assert notes.bad == []
    assert labels.names == ("dog barking", "heart sounds, heartbeat")


VGG_BAD = {
    "#NAME?,30,dog barking,train": f"'#NAME?' {SPREADSHEET}",
    "ccccccccccc,30,,train": "has no label",
    "ccccccccccc,30": "has no label",
    "ccccccccccc,30,dog barking,tra": (
        "does not end in train or test as others do: 'ccccccccccc,30,dog barking,tra'"
    ),
    "ccccccccccc,30,dog barking": (
        "does not end in train or test as others do: 'ccccccccccc,30,dog barking'"
    ),
    "ccccccccccc": (
        "expected YTID,start_seconds,label,split or YTID_000030.mp4,label, found 'ccccccccccc'"
    ),
    "ccccccccccc,soon,dog barking,train": (
        "expected YTID,start_seconds,label,split or YTID_000030.mp4,label, "
        "found 'ccccccccccc,soon,dog barking,train'"
    ),
    'ccccccccccc,30,"dog barking,train': "a quote is never closed; the file may be cut short: "
    "'ccccccccccc,30,\"dog barking,train'",
}


@pytest.mark.parametrize("row", VGG_BAD)
def test_a_vggsound_row_that_cannot_be_used_is_refused(row, tmp_path):
    rows, notes, labels = vggsound_of(tmp_path, f"{VGG}{row}\n")
    assert rows == VGG_ROWS
    assert len(labels) == 2
    assert notes.bad == [(3, VGG_BAD[row])]


def test_an_unknown_vggsound_label_gets_a_hint(tmp_path):
    known = label_set_from_names(["dog barking", "heart sounds, heartbeat"])
    _, notes, _ = vggsound_of(tmp_path, VGG.replace("dog", "dgo"), known)
    assert notes.bad == [
        (1, "unknown label 'dgo barking': neither mid nor name of the 2 classes, "
            "did you mean 'dog barking'?")
    ]  # fmt: skip


def test_a_split_that_is_not_there_is_explained(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text(VGG)
    assert read_vggsound(path, None).only("Test", path).split == "test"
    with pytest.raises(UserError, match=r"v\.csv: has no split 'val'; it has test, train\."):
        read_vggsound(path, None).only("val", path)
    path.write_text(VGG.replace(",train", "").replace(",test", ""))
    with pytest.raises(UserError, match=r"has no splits.* Leave --split out, give a CSV"):
        read_vggsound(path, None).only("test", path)


def test_the_real_vggsound_csv_is_read_whole(shared):
    path = shared / "metadata" / "vggsound_head.csv"
    data_set = read_vggsound(path, None)
    rows, labels = data_set.segments.rows, data_set.labels
    expected = list(csv.reader(path.open(newline="")))
    assert len(rows) == len(expected) == 200
    assert data_set.notes == CsvNotes()
    names = dict(zip(labels.mids, labels.names, strict=True))
    for row, (name, label) in zip(rows, expected, strict=True):
        assert f"{row.name}_{row.start:06.0f}.mp4" == name
        assert row.end == row.start + 10
        assert names[row.labels[0]] == label
    assert list(labels.names) == sorted({label for _, label in expected})


def test_real_audioset_names_are_accepted_for_mids(shared, tmp_path):
    """Every one of the 527 names, though many hold commas, alone and in a list of three."""
    labels = read_label_csv(shared / "metadata" / "class_labels_indices.csv")
    assert len(labels) == 527
    path = tmp_path / "s.csv"
    lines = []
    for index in range(len(labels)):
        names = [labels.names[(index + step) % len(labels)] for step in range(3)]
        lines.append(f'a{index:010d},0,10,"{names[0]}"\nb{index:010d},0,10,"{", ".join(names)}"\n')
    path.write_text("".join(lines))
    data_set = read_audioset(path, labels)
    assert data_set.notes.bad == []
    for index, row in enumerate(data_set.segments.rows):
        size = 3 if index % 2 else 1
        wanted = [labels.mids[(index // 2 + step) % len(labels)] for step in range(size)]
        assert list(row.labels) == wanted


LISTING_BAD = {
    ",dog": "has no path",
    "a.mp4,dog,x,y,z,t": "has more fields than the 5 of line 1; quote a field with commas in",
    "a.mp4,dog,train,soon,": "the start must be seconds, found 'soon'",
    "a.mp4,dog,train,5,4": "the end, 4 s, does not come after the start, 5 s",
    "a.mp4,cow,train,,": "unknown label 'cow': neither mid nor name of the 2 classes",
}


@pytest.mark.parametrize("row", LISTING_BAD)
def test_a_row_of_a_listing_that_cannot_be_used_is_refused(row, tmp_path):
    path = tmp_path / "l.csv"
    path.write_text(f"path,label,split,start,end\nb.mp4,dog,,,\n{row}\n")
    data_set = read_listing(path, label_set_from_names(["dog", "cat"]))
    assert [row.name for row in data_set.segments.rows] == ["b.mp4"]
    assert data_set.notes.bad == [(3, LISTING_BAD[row])]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1 must name the columns, at least path and label, found 'nothing'"),
        ("a.mp4,dog\n", "line 1 must name the columns, at least path and label, found 'a.mp4,dog'"),
        ("path,label\n", "has no rows below its header"),
    ],
)
def test_a_listing_without_columns_or_rows_is_refused(text, complaint, tmp_path):
    path = tmp_path / "l.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_listing(path, None)


def test_a_listing_has_columns_in_any_order_and_several_labels(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text(
        "note,Labels,split,FILE\nx,dog;cat,train,a.mp4\n"
        ',"dog, cat",,./b.mp4\n,,,c.mp4\n,owl,,a.mp4\n'
    )
    data_set = read_listing(path, None)
    assert {row.name: (row.labels, row.split) for row in data_set.segments.rows} == {
        "a.mp4": (("dog", "cat", "owl"), "train"),
        "b.mp4": (("dog", "cat"), ""),
        "c.mp4": ((), ""),
    }
    note = "files in several rows have the classes of all of them"
    assert data_set.notes.corrected == {note: [5]}


def test_a_manifest_leaves_garbage_collection_as_it_was(tmp_path):
    options = AudioSetOptions(tmp_path / "none.csv", labels=tmp_path / "none.csv")
    sources, output = Sources(videos=(str(tmp_path),)), ManifestOutput(tmp_path / "m.json")
    with pytest.raises(UserError, match=r"no such file|cannot be read"):
        make_audioset_manifest(options, sources, output)
    assert gc.isenabled()
