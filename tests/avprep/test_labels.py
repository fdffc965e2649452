"""Class CSVs: read as people have them, made from names, and never renumbered behind one's back."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.errors import UserError
from avprep.labels import (
    LabelSet,
    class_csv_of,
    label_set_for,
    label_set_from_names,
    labels_of,
    read_label_csv,
    write_label_csv,
)

HEAD = "index,mid,display_name\n"
GOOD = HEAD + '0,/m/a,"Dog, barking"\n1,/m/b,Cat\n'
SPELLINGS = {
    "as published": GOOD.encode(),
    "byte order mark": GOOD.encode("utf-8-sig"),
    "Windows line ends": GOOD.replace("\n", "\r\n").encode(),
    "gzip": gzip.compress(GOOD.encode()),
    "lost quotes": GOOD.replace('"', "").encode(),
    "trailing commas": GOOD.replace("\n", ",,\n").encode(),
    "empty lines": GOOD.replace("\n", "\n\n").encode(),
    "spaces": GOOD.replace(",/m", " , /m").encode(),
}
BAD = {
    "": "line 1 must be 'index,mid,display_name', found 'nothing'.",
    "mid,name\n": "line 1 must be 'index,mid,display_name', found 'mid,name'.",
    HEAD + "1,/m/a,A\n": ("line 2: expected class 0 as index,mid,display_name, found '1,/m/a,A'."),
    HEAD + "0,/m/a,A\n\n2,/m/b,B\n": (
        "line 4: expected class 1 as index,mid,display_name, found '2,/m/b,B'."
    ),
    HEAD + "0,/m/a\n": "line 2: expected class 0 as index,mid,display_name, found '0,/m/a'.",
    HEAD + "0,,A\n": "line 2: the mid is '' and the name 'A'; give both, the mid without commas.",
    HEAD
    + '0,"/m/a,b",A\n': "line 2: the mid is '/m/a,b' and the name 'A'; give both, the mid without "
    "commas.",
    HEAD + "0,/m/a,A\n1,/m/a,B\n": "line 3: the mid '/m/a' was used before (line 2).",
    HEAD + '0,/m/a,"A\n': "line 2: a quote is never closed; the file may be cut short.",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_class_csv_is_read_whatever_was_done_to_it(name, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(SPELLINGS[name])
    assert read_label_csv(path) == LabelSet(("/m/a", "/m/b"), ("Dog, barking", "Cat"))


@pytest.mark.parametrize("text", BAD)
def test_a_wrong_class_csv_is_refused_with_its_line(text, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_label_csv(path)
    assert str(caught.value) == f"{path}: {BAD[text]}"


@pytest.mark.parametrize(
    ("text", "mid"),
    [
        ("/m/a", "/m/a"),
        ("Dog, barking", "/m/a"),
        ("dog, BARKING", "/m/a"),
        ("dog_barking", "/m/a"),
        ("Dog barking", "/m/a"),
        ("Twin", None),  # two classes are called so
        ("twin", None),
        ("cat", "/m/d"),  # exact, though CAT is another class
        ("CAT", "/m/e"),
        ("Cat", None),  # either
        ("", None),
        ("cow", None),
    ],
)
def test_a_class_is_known_by_mid_or_by_a_name_that_is_its_own(text, mid):
    names = ("Dog, barking", "Twin", "Twin", "cat", "CAT")
    labels = LabelSet(("/m/a", "/m/b", "/m/c", "/m/d", "/m/e"), names)
    assert labels.resolve(text) == mid


@given(data=st.data())
def test_a_list_of_names_is_taken_apart_as_it_was_joined(data):
    """Names may hold commas, unless one is then the beginning of another."""
    words = st.text("ab", min_size=1, max_size=3)
    names = data.draw(st.lists(st.lists(words, min_size=1, max_size=3).map(", ".join), unique=True))
    names = [
        n for n in names if not any(n != m and n.split(", ")[0] in m.split(", ") for m in names)
    ]
    labels = LabelSet(tuple(f"/m/{n}" for n in range(len(names))), tuple(names))
    chosen = data.draw(st.lists(st.sampled_from(range(len(names))), max_size=4)) if names else []
    if chosen:
        mids = [f"/m/{n}" for n in chosen]
        assert labels.resolve_list(",".join(names[n] for n in chosen)) == mids
        assert labels.resolve_list(", ".join(mids)) == mids


def test_a_known_label_set_keeps_its_numbering():
    known = label_set_from_names(["b", "a", "c"])
    labels, mids = label_set_for(["c", "a"], known, "labels.csv")
    assert labels is known
    assert mids == {"a": "a", "c": "c"}
    with pytest.raises(UserError) as caught:
        label_set_for(["bb"], known, "labels.csv")
    assert str(caught.value) == (
        "labels.csv: has no class 'bb'. Did you mean 'b'? To number the classes again, delete this "
        "file; to keep it, name another one with --labels."
    )


def test_the_class_csv_of_a_manifest_is_named_after_it(tmp_path):
    for name, beside in {
        "m.json": "m.classes.csv", "m.jsonl": "m.classes.csv", "m.csv": "m.classes.csv",
        "a.train.parquet": "a.train.classes.csv",
    }.items():  # fmt: skip
        assert class_csv_of(tmp_path / name) == tmp_path / beside
    assert labels_of(tmp_path / "m.json") is None
    write_label_csv(tmp_path / "m.classes.csv", label_set_from_names(["a", "b"]))
    assert labels_of(tmp_path / "m.json") == label_set_from_names(["a", "b"])


def test_the_real_class_csv_survives_reading_and_writing_byte_for_byte_but_quotes(shared, tmp_path):
    path = shared / "metadata" / "class_labels_indices.csv"
    labels = read_label_csv(path)
    write_label_csv(tmp_path / "l.csv", labels)
    assert read_label_csv(tmp_path / "l.csv") == labels
    assert len(labels) == 527
    assert all(
        labels.resolve(name) == mid for mid, name in zip(labels.mids, labels.names, strict=True)
    )
