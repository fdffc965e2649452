"""VGGSounder's CSV becomes a manifest whose clips have all their labels, or is refused by line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from avprep.cli import group
from avprep.errors import UserError
from avprep.labels import vggsound_labels

HEAD = "video_id,label,modality,background_music,static_image,voice_over\n"
ROWS = (
    "--U7joUcTCo_000030,people giggling,AV,False,False,True\n"
    '--U7joUcTCo_000030,"male speech, man speaking",A,False,False,True\n'
    "bbbbbbbbbbb_000001,dog barking,V,True,True,False\n"
    "ccccccccccc_000002,dog barking,V,True,True,False\n"
)


def make(tmp_path, text, *words, names=("--U7joUcTCo_000030.mp4", "bbbbbbbbbbb_000001.mp4")):
    (tmp_path / "v").mkdir()
    for name in names:
        (tmp_path / "v" / name).write_bytes(b"x")
    (tmp_path / "s.csv").write_text(text)
    line = ("manifest", "vggsounder", "--csv", tmp_path / "s.csv", "--videos", tmp_path / "v")
    arguments = list(map(str, (*line, "--out", tmp_path / "m.json", "--json", *words)))
    return CliRunner().invoke(group, arguments)


def test_clips_have_all_their_labels_and_the_published_numbers(tmp_path):
    result = make(tmp_path, HEAD + ROWS)
    assert result.exit_code == 0, result.exception
    facts = json.loads(result.stdout)
    assert (facts["clips"], facts["classes"], facts["missing"], facts["bad_row"]) == (2, 309, 1, 0)
    labels = vggsound_labels()
    first, second = json.loads((tmp_path / "m.json").read_text())["data"]
    assert first["video_id"] == "--U7joUcTCo_000030"
    assert [labels.names[labels.index_of(mid)] for mid in first["labels"].split(",")] == [
        "people giggling", "male speech, man speaking"
    ]  # fmt: skip
    assert second["labels"] == labels.resolve("dog barking")
    assert "start" not in first  # the file has been cut already


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("video_id,label,modality\na,b,A\n", "lacks background_music, static_image, voice_over"),
        (HEAD, "has no rows"),
        (HEAD + "bbbbbbbbbbb_000001,dog,V,True,True,False\n", r"line 2: unknown label 'dog'"),
        (HEAD + "b_000001,dog barking,X,True,True,False\n", "line 2: the modality must be A, V or"),
        (HEAD + "b_000001,dog barking,A,yes,True,False\n", "line 2: background_music must be True"),
        (HEAD + "b_000001,dog barking,A,True\n", "line 2: has 4 fields, line 1 has 6"),
        (HEAD + "b,dog barking,A,True,True,False\n", "line 2: expected an id such as ID_000030"),
        (
            HEAD + ROWS + "ccccccccccc_000002,cat purring,V,False,True,False\n",
            "line 6: contradicts line 5, of the same clip",
        ),
        (
            HEAD + ROWS + "ccccccccccc_000002,dog barking,A,True,True,False\n",
            "line 6: gives 'dog barking' another modality",
        ),
    ],
)
def test_what_is_not_vggsounders_csv_is_refused(tmp_path, text, complaint):
    result = make(tmp_path, text)
    assert isinstance(result.exception, UserError)
    with pytest.raises(UserError, match=complaint):
        raise result.exception
    assert not (tmp_path / "m.json").exists()


def test_bad_rows_are_left_out_where_that_is_asked_for(tmp_path):
    bad = "bbbbbbbbbbb_000001,dog barking,sometimes,True,True,False\n"
    result = make(tmp_path, HEAD + ROWS + bad, "--bad-rows", "skip")
    facts = json.loads(result.stdout)
    assert (facts["clips"], facts["bad_row"]) == (2, 1)
