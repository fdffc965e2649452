"""Each planted fault is found at its documented threshold, however coded, and nothing else is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from avprep.decode import decode_clip
from avprep.quality.faults import FAULTS
from avprep.quality.measures import MEASURES, measure_clip
from tests.conftest import REPOSITORY
from tests.faulty_clips import fault_of, make_faulty_clip


def faults_in(path) -> set[str]:
    media = decode_clip(path)
    found = measure_clip(media.pcm, media.frames, 16000)
    return {fault.name for fault in FAULTS if fault.found_in(np.array(found[fault.measure]))}


@pytest.mark.parametrize("number", range(100, 140))
def test_planted_faults_are_found_and_ordinary_clips_have_none(tmp_path, number):
    clip = make_faulty_clip(tmp_path, number, fault_of(number))
    assert faults_in(clip.path) == clip.faults


def test_every_fault_is_planted():
    assert {fault_of(number) for number in range(100, 140)} == {f.name for f in FAULTS} | {""}


def test_real_speech_and_talking_heads_have_no_fault(shared):
    videos = sorted((shared / "grid" / "videos").glob("*.mp4"))[::100]
    for path in (*videos, *sorted((shared / "media").glob("*.mp4"))):
        assert faults_in(path) == set(), path


def test_the_documented_measures_and_thresholds_are_those_of_the_code():
    page = (REPOSITORY / "docs" / "quality.md").read_text().partition("## Selecting")[0]
    assert re.findall(r"^\| `(\w+)` \| ", page, re.MULTILINE) == list(MEASURES)
    documented = re.findall(r"^\| (\w+) \| `(.+?)` \| ", page, re.MULTILINE)
    assert documented == [(fault.name, fault.condition) for fault in FAULTS]
