"""Pages hold everything they need, show foreign text as text, and play clips."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from avprep.audio import encode_flac, encode_wav
from avprep.images import encode_jpeg
from avprep.pages.clips import view_clip
from avprep.pages.page import data_uri, render_page
from avprep.pages.pictures import WAVEFORM_HEIGHT, log_mel, spectrogram_image, waveform_path
from tests.browser import PHONE_WIDTH

HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "</script><script>document.title = 'owned'</script>",
    '"><img src=x onerror="document.title = \'owned\'">',
    "' onfocus=\"document.title = 'owned'\" autofocus='",
    "<!-- {{ 7 * 7 }} {% raw %} ]]>",
    "javascript:alert(1)",
    "line\nbreak\u2028and\x00zero",
    "not UTF-8: \udcff",
)
TEMPLATE = """\
{% extends "page.html" %}
{% from "clip.html" import clip_player %}
{% block title %}Clips{% endblock %}
{% block body %}
<h1>Clips</h1>
{% for word in words %}<p class="word" data-word="{{ word }}">{{ word }}</p>{% endfor %}
<script type="application/json" id="facts">{{ words|tojson }}</script>
{% for clip in clips %}<article class="card clip">{{ clip_player(clip) }}</article>{% endfor %}
{% endblock %}
"""


def sample_members(kind="flac", seconds=1.0, times=True, **facts):
    rng = np.random.default_rng(0)
    pcm = (3000 * np.sin(np.arange(int(seconds * 16000)) * 0.2)).astype(np.int16)
    frames = [np.full((64, 64, 3), rng.integers(0, 256, 3), np.uint8) for _ in range(10)]
    facts = {
        "video_id": "clip.0",
        "sample_rate": 16000,
        "num_samples": len(pcm),
        "frame_times": [n * seconds / 10 for n in range(10)] if times else [],
        "source": "/videos/0.mp4",
        **facts,
    }
    return {
        "json": json.dumps(facts).encode(),
        kind: (encode_flac if kind == "flac" else encode_wav)(pcm),
        **{f"{n}.jpg": encode_jpeg(frame, 75) for n, frame in enumerate(frames)},
    }


@pytest.fixture
def page(tmp_path, monkeypatch):
    """Renders the template above, as a package of its own would."""
    folder = tmp_path / "strange_pages"
    (folder / "templates").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "templates" / "clips.html").write_text(TEMPLATE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "strange_pages", raising=False)  # that of the test before

    def write(words=(), clips=()):
        data = render_page("strange_pages", "clips.html", ["clip.js"], words=words, clips=clips)
        (tmp_path / "page.html").write_bytes(data)
        return tmp_path / "page.html"

    return write


def test_foreign_text_is_shown_and_never_run(page, browser):
    browser.open(page(HOSTILE))
    assert browser.run("return document.title") == "Clips"
    assert browser.run("return document.images.length") == 0
    assert browser.run("return document.querySelectorAll('script').length") == 2
    # HTML cannot hold a zero byte or half a surrogate pair; both are replaced.
    kept = [word.replace("\x00", "\ufffd") for word in HOSTILE[:-1]] + ["not UTF-8: \\udcff"]
    words = "return [...document.querySelectorAll('.word')].map(e => e.textContent)"
    assert browser.run(words) == kept
    in_attributes = "return [...document.querySelectorAll('.word')].map(e => e.dataset.word)"
    assert browser.run(in_attributes) == kept
    # WebDriver cannot carry the last one, half a surrogate pair.
    facts = "return JSON.parse(document.getElementById('facts').textContent).slice(0, -1)"
    assert browser.run(facts) == list(HOSTILE[:-1])
    assert browser.console_messages() == []
    assert browser.network_requests() == []


def test_the_policy_stops_what_escaping_would_not(page, browser):
    path = page()
    evil = "<script>document.title = 'owned'</script><img src='http://127.0.0.1:9/x.png'>"
    path.write_text(path.read_text().replace("</body>", f"{evil}</body>"))
    browser.open(path)
    assert browser.run("return document.title") == "Clips"
    assert len([m for m in browser.console_messages() if "Content Security Policy" in m]) == 2


@pytest.mark.parametrize("kind", ["flac", "wav"])
@pytest.mark.parametrize("width", [1280, PHONE_WIDTH])
def test_a_clip_plays_and_its_frames_follow(page, browser, kind, width):
    members = sample_members(kind)
    browser.open(page(clips=[view_clip(members)]), width)
    assert browser.overflow() <= 0
    audio = browser.find("audio")
    browser.run("arguments[0].play()", audio)
    browser.wait_until("return arguments[0].currentTime > 0.3", audio)
    number = "return [...document.querySelectorAll('.film button')].findIndex(b => b.ariaCurrent)"
    assert browser.wait_until(f"{number} >= 3 && arguments[0].currentTime > 0", audio)
    browser.wait_until("return arguments[0].ended", audio)
    assert browser.run("return arguments[0].duration", audio) == pytest.approx(1.0, abs=1e-3)
    assert browser.wait_until(f"{number} === 9")
    assert browser.run("return document.querySelector('.stage').src") == data_uri(
        "image/jpeg", members["9.jpg"]
    )
    assert browser.console_messages() == []
    assert browser.network_requests() == []


def test_a_frame_is_a_button_that_seeks(page, browser):
    browser.open(page(clips=[view_clip(sample_members())]))
    audio = browser.find("audio")
    fourth = browser.find(".film button:nth-child(4)")
    assert fourth.get_attribute("aria-label") == "Frame 4, at 0.3 s"
    browser.run("arguments[0].focus()", fourth)
    fourth.send_keys("\n")
    browser.wait_until("return Math.abs(arguments[0].currentTime - 0.3) < 0.01", audio)
    assert fourth.get_attribute("aria-current") == "true"
    assert browser.find(".playhead").value_of_css_property("left") != "0px"


def test_only_one_clip_plays_at_a_time(page, browser):
    view = view_clip(sample_members(seconds=5))
    browser.open(page(clips=[view, view]))
    browser.run("document.querySelectorAll('audio')[0].play()")
    browser.wait_until("return document.querySelectorAll('audio')[0].currentTime > 0.05")
    browser.run("document.querySelectorAll('audio')[1].play()")
    browser.wait_until("return document.querySelectorAll('audio')[1].currentTime > 0.05")
    assert browser.run("return document.querySelectorAll('audio')[0].paused")


def test_frames_of_packed_files_claim_no_time():
    frames = view_clip(sample_members(seconds=20.0, times=False)).frames
    assert [frame.time for frame in frames] == list(range(10))
    assert {frame.caption for frame in frames} == {""}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"json": b"{"}, "Expecting property name"),
        ({"json": b"[]"}, "its JSON is not a sample's"),
        ({"json": b"{}"}, "has no 'sample_rate'"),
        ({"flac": b"nothing"}, "audio: "),
        ({"flac": None}, "has no 'wav'"),
        ({"flac": encode_flac(np.zeros(800, np.int16))}, "audio: ends after 800 of 16000 samples"),
    ],
)
def test_a_damaged_sample_is_named(change, message):
    members = {k: v for k, v in {**sample_members(), **change}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        view_clip(members)


def test_pictures_show_a_tone_where_it_is():
    rate, seconds = 16000, 2
    time = np.arange(rate * seconds) / rate
    low, high = np.sin(2 * np.pi * 500 * time), np.sin(2 * np.pi * 4000 * time)
    energies = log_mel((20000 * np.where(time < 1, low, high)).astype(np.int16), rate)
    mel = lambda hertz: 1127 * np.log1p(hertz / 700)  # noqa: E731
    expected = [(mel(f) - mel(20)) / (mel(8000) - mel(20)) * 81 - 1 for f in (500, 4000)]
    assert energies[:90].argmax(axis=1) == pytest.approx(expected[0], abs=1)
    assert energies[110:].argmax(axis=1) == pytest.approx(expected[1], abs=1)
    assert energies.max() == 0


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 401, 16000, 60 * 16000])
def test_pictures_of_any_length(samples):
    pcm = np.full(samples, -32768, np.int16)
    pcm[::2] = 32767
    assert spectrogram_image(pcm, 16000)[8:12] == b"WEBP"
    numbers = waveform_path(pcm)[1:-1].replace("L", " ").split()
    heights = [float(number) for number in numbers[1::2]]
    assert 0 <= min(heights) <= max(heights) <= WAVEFORM_HEIGHT


def test_silence_is_dark():
    assert log_mel(np.zeros(16000, np.int16), 16000).max() == pytest.approx(-70, abs=0.01)
