"""Columns are read by name; one that looks like a time is read or refused, never passed over."""

from __future__ import annotations

import csv
import io
import itertools

import pytest

from avprep.clips import Clip
from avprep.columns import LABEL, PATHS, folded, known_columns
from avprep.errors import UserError
from avprep.labels import LabelSet, read_label_csv
from avprep.manifest.model import read_manifest
from avprep.manifest.sources.audioset import read_audioset
from avprep.manifest.sources.listing import read_listing
from avprep.manifest.sources.rows import CsvNotes, Row
from avprep.manifest.sources.vggsound import read_vggsound
from tests.avprep.test_manifest_commands import run, touch

# Header → seconds per unit of start, end and duration.
TIMES = {
    "start,end": (1, 1, None), "start_time,end_time": (1, 1, None), "begin,stop": (1, 1, None),
    "t0,t1": (1, 1, None), "start_sec,end_sec": (1, 1, None), "onset,offset": (1, 1, None),
    "START TIME, End Time": (1, 1, None), "startTime,endTime": (1, 1, None),
    "starttime,endtime": (1, 1, None), "time_start,time_end": (1, 1, None),
    "start_seconds,end_seconds": (1, 1, None), "Start (s),End (s)": (1, 1, None),
    "segment_start,segment_end": (1, 1, None), "tstart,tend": (1, 1, None),
    "from,to": (1, 1, None), "start,duration": (1, None, 1), "offset,duration": (1, None, 1),
    "begin_time,duration_seconds": (1, None, 1), "start_ms,end_ms": (1e-3, 1e-3, None),
    "startTimeMs,durMs": (1e-3, None, 1e-3), "start_min,end_min": (60, 60, None),
    "start_timestamp,end_timestamp": (1, 1, None), "time_in,time_out": (1, 1, None),
    "beg,end": (1, 1, None), "stime,etime": (1, 1, None), "ss,to": (1, 1, None),
    "start": (1, None, None), "duration": (None, None, 1), "length": (None, None, 1),
}  # fmt: skip
UNCLEAR = [
    *("time", "timestamp", "seconds", "ms", "start_frame", "end_frames", "start_hms", "offset"),
    *("interval", "time_range", "clip_time", "start_page", "t", "timecode", "start,start_time"),
    *("t1,t2", "time1,time2", "start1,end1", "segment", "segments", "span", "window"),
]
NO_TIMES = [
    "upload_time",
    "fps",
    "caption_length",
    "weekend",
    "music",
    "static_image",
    "to",
    "tone",
]


@pytest.mark.parametrize("header", TIMES)
def test_times_are_known_by_their_usual_names(header):
    columns = known_columns("c.csv", ["path", "label", *header.split(",")], {"path": PATHS})
    assert columns.others == ("label",)
    found = tuple(columns.seconds_per.get(role) for role in ("start", "end", "duration"))
    assert found == TIMES[header]


@pytest.mark.parametrize("header", UNCLEAR)
def test_a_column_that_looks_like_a_time_is_never_passed_over(header, tmp_path):
    path = tmp_path / "c.csv"
    path.write_text(f"path,label,{header}\na.mp4,dog,1,2\n")
    with pytest.raises(UserError, match=r"c\.csv: line 1: the column"):
        read_listing(path, None)


def listed(tmp_path, text, labels=None):
    path = tmp_path / "c.csv"
    path.write_text(text)
    data_set = read_listing(path, labels)
    assert not data_set.notes.bad
    return [(row.name, row.labels, row.start, row.end) for row in data_set.segments.rows]


def test_times_of_a_clock_are_read(tmp_path):
    text = "path,label,start,duration\na,dog,00:01:30.5,10\nb,dog,1:05,00:02\n"
    assert listed(tmp_path, text) == [("a", ("dog",), 90.5, 100.5), ("b", ("dog",), 65.0, 67.0)]


@pytest.mark.parametrize(
    "cell", ["dog;cat", "dog|cat", '"dog,cat"', "\"['dog', 'cat']\"", "[dog;cat]"]
)
@pytest.mark.parametrize("labels", [None, LabelSet(("cat", "dog"), ("cat", "dog"))])
def test_several_labels_of_a_cell_are_told_apart(cell, labels, tmp_path):
    assert listed(tmp_path, f"path,labels\na,{cell}\n", labels) == [
        ("a", ("dog", "cat"), None, None)
    ]


@pytest.mark.parametrize("header", ["path,label,label", "Label,path,label", "path,label,path"])
def test_two_columns_of_one_name_are_refused(header, tmp_path):
    with pytest.raises(UserError, match="line 1: two columns are called"):
        listed(tmp_path, f"{header}\na,b,c\n")


@pytest.mark.parametrize("header", NO_TIMES)
def test_a_column_that_is_no_time_is_passed_over(header):
    columns = known_columns("c.csv", ["path", "label", header], {"path": PATHS, "label": LABEL})
    assert columns.others == (header,)


@pytest.mark.parametrize(
    "spelling", ["file_name", "File Name", "fileName", "FILENAME", " file-name "]
)
def test_a_name_is_the_same_in_every_spelling(spelling):
    assert folded(spelling) == "filename"


@pytest.mark.parametrize(
    ("header", "values"),
    [("start,end", "10,20"), ("start,duration", "10,10"), ("startMs,endMs", "10000,20000"),
     ("onset,offset", "10.0,20.0"), ("start,end,duration", "10,20,300"), ("t0,length_s", "10,10")],
)  # fmt: skip
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_segments_of_a_listing_have_their_times(header, values, delimiter, mark, tmp_path):
    path = tmp_path / "c.csv"
    text = f"Label,{header},note,File Path\nviolin,{values},x,a.mp4\n"
    path.write_text(mark + text.replace(",", delimiter))
    (row,) = read_listing(path, None).segments.rows
    assert (row.name, row.labels, row.start, row.end) == ("a.mp4", ("violin",), 10.0, 20.0)


def test_a_listing_may_name_files_by_id_with_a_row_for_each_label(tmp_path):
    """VGGSounder's columns: several rows a clip, files named without suffix."""
    touch(tmp_path / "v", "x/abcdefghijk_000030.mp4", "two/b.mp4", "three/b.mp4")
    path = tmp_path / "c.csv"
    path.write_text(
        "video_id,label,modality,background_music,static_image,voice_over\n"
        "abcdefghijk_000030,people giggling,AV,False,False,True\n"
        'abcdefghijk_000030,"female speech, woman speaking",A,False,False,True\n'
        "b,splashing water,AV,False,False,False\n"
    )
    said = run("manifest", "folder", tmp_path / "v", "--csv", path, "--out", tmp_path / "m.json")
    assert "1 missing" in said  # b could be either file
    (clip,) = read_manifest(tmp_path / "m.json")
    assert clip.labels == ("people giggling", "female speech_ woman speaking")
    assert clip.video_id == "abcdefghijk_000030"


CLASSES = LabelSet(("/m/a", "/m/b"), ("Dog, barking", "Cat"))
AUDIOSET = {"YTID": "bbbbbbbbbbb", "start_seconds": "30", "end_seconds": "40.5",
            "positive_labels": "/m/b,/m/a"}  # fmt: skip


def table_of(columns, delimiter=","):
    """A CSV of one row."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([columns.keys(), columns.values()])
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("order", [*itertools.permutations(AUDIOSET)])
def test_audioset_is_read_by_the_names_of_its_columns(order, delimiter, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(table_of({name: AUDIOSET[name] for name in order}, delimiter))
    data_set = read_audioset(path, CLASSES)
    assert data_set.notes == CsvNotes()
    assert data_set.segments.rows == [Row(2, "bbbbbbbbbbb", 30.0, 40.5, ("/m/b", "/m/a"))]


def test_a_header_in_other_words_and_units_is_read_too(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text('label,Duration (ms),start,youtube_id\n"Dog, barking",10500,30,bbbbbbbbbbb\n')
    (row,) = read_audioset(path, CLASSES).segments.rows
    assert (row.start, row.end, row.labels) == (30.0, 40.5, ("/m/a",))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_table_without_header_may_have_another_delimiter(delimiter, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(delimiter.join(("bbbbbbbbbbb", "30", "40", "/m/a,/m/b")) + "\n")
    (row,) = read_audioset(path, CLASSES).segments.rows
    assert (row.start, row.end, row.labels) == (30.0, 40.0, ("/m/a", "/m/b"))


@pytest.mark.parametrize("header", ["", "ytid;start;end;labels\n"])
def test_a_row_with_another_delimiter_than_the_first_is_refused(header, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(f"{header}bbbbbbbbbbb;30;40;/m/a\nccccccccccc,30,40,/m/b\n")
    data_set = read_audioset(path, CLASSES)
    ((line, reason),) = data_set.notes.bad
    assert line == (3 if header else 2)
    assert reason == "has commas between its fields, not semicolons: 'ccccccccccc,30,40,/m/b'"
    assert [row.name for row in data_set.segments.rows] == ["bbbbbbbbbbb"]


VGG = {"youtube_id": "bbbbbbbbbbb", "start": "30", "class": "dog barking", "split": "test"}


@pytest.mark.parametrize("order", [*itertools.permutations(VGG)])
def test_vggsound_is_read_by_the_names_of_its_columns(order, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(table_of({name: VGG[name] for name in order}))
    data_set = read_vggsound(path, None)
    assert data_set.notes.bad == []
    (row,) = data_set.segments.rows
    assert row[1:] == ("bbbbbbbbbbb", 30.0, 40.0, ("dog barking",), "test")


FOREIGN = {
    "VGGSounder": (
        "video_id,label,modality,background_music,static_image,voice_over\n"
        "abcdefghijk_000030,people giggling,AV,False,False,True\n",
        r"these are VGGSounder's columns: `avprep manifest vggsounder --csv s\.csv` reads it",
    ),
    "VGGSounder without header": (
        "abcdefghijk_000030,people giggling,AV,False,False,True\n", "found more fields"
    ),
    "Kinetics": (
        "label,youtube_id,time_start,time_end,split\nabseiling,abcdefghijk,30,40,train\n",
        r"these are not VGGSound's columns.*`avprep manifest folder",
    ),
    "AudioSet": (
        'YTID,start_seconds,end_seconds,positive_labels\nabcdefghijk,30,40,"/m/09x0r"\n',
        r"these are AudioSet's columns, which `avprep manifest audioset --segments .*` reads",
    ),
    "AudioSet without header": (
        '# YTID, start, end, labels\nabcdefghijk, 30.000, 40.000, "/m/09x0r"\n',
        r"has an end, as AudioSet's rows have, which `avprep manifest audioset --segments` reads",
    ),
    "several labels": (
        "abcdefghijk,30,people giggling,test\nabcdefghijk,30,splashing water,test\n",
        r"is the clip of line 1 with another label, .*`avprep manifest folder DIR --csv",
    ),
    "a column of another time": (
        "ytid,start,label,timestamp\nabcdefghijk,30,people giggling,5\n", "looks like a time"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("labels", [[], ["--labels", "new.csv"]])
def test_another_data_set_s_csv_is_not_turned_into_classes(name, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, complaint = FOREIGN[name]
    (tmp_path / "s.csv").write_text(text)
    touch(tmp_path / "v", "abcdefghijk_000030.mp4")
    words = ("manifest", "vggsound", "--csv", "s.csv", "--videos", "v", "--out", "out/m.json")
    with pytest.raises(UserError, match=complaint):
        run(*words, *labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.csv", "v"]


def test_vggsound_given_to_audioset_is_told_where_it_belongs(tmp_path):
    (tmp_path / "s.csv").write_text("abcdefghijk,30,dog barking,train\n")
    ((_, reason),) = read_audioset(tmp_path / "s.csv", CLASSES).notes.bad
    assert "`avprep manifest vggsound --csv` reads" in reason
    (tmp_path / "s.csv").write_text("ytid,start,label,split\nabcdefghijk,30,dog barking,train\n")
    with pytest.raises(UserError, match=r"VGGSound's columns, which `avprep manifest vggsound"):
        read_audioset(tmp_path / "s.csv", CLASSES)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header", ["index,mid,display_name", "Display Name,INDEX,mid", "mid,clips,display_name,index"]
)
def test_a_class_csv_is_read_by_the_names_of_its_columns(header, delimiter, tmp_path):
    cells = {"index": "0", "mid": "/m/a", "displayname": "Dog, barking", "clips": "5"}
    row = {name: cells[folded(name)] for name in header.split(",")}
    path = tmp_path / "l.csv"
    path.write_text("\ufeff" + table_of(row, delimiter))
    assert read_label_csv(path) == LabelSet(("/m/a",), ("Dog, barking",))


def test_a_manifest_that_is_a_table_has_its_times_by_name(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "Video_ID;video;wav;video_path;labels;start_ms;duration_ms\na;a.mp4;;;x;500;1500\n"
    )
    assert read_manifest(path) == [Clip("a", ("x",), "a.mp4", 0.5, 2.0)]
    path.write_text("video_id,video,labels,timestamp\na,a.mp4,x,3\n")
    with pytest.raises(
        UserError, match=r"m\.csv: line 1: the column 'timestamp' looks like a time"
    ):
        read_manifest(path)
