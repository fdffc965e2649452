"""`avprep report`: one page that shows a shard set, to people, on any screen, without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avprep.clips import Clip
from avprep.encode.wire import EncodedSample
from avprep.errors import UserError
from avprep.failures import ClipFailure, failures_csv
from avprep.jobs import PoolOptions
from avprep.labels import LabelSet
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import IsolationOptions, SampleOptions
from avprep.pages.gallery import Candidate, ClipChooser, GalleryOptions, cost_on_page, within_size
from avprep.pages.histogram import histogram, round_up
from avprep.pages.shard_report import (
    ReportOptions,
    make_report,
    readable_duration,
    report,
)
from avprep.pages.survey import some_of_each_cause
from avprep.quality.faults import FAULTS
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.format import (
    DatasetInfo,
    SampleEntry,
    ShardInfo,
    index_name,
    read_dataset,
    read_index,
    update_dataset,
    write_dataset,
)
from avprep.shards.plan import ShardJob
from avprep.shards.writer import ShardSettings, ShardWriter
from avprep.wording import size
from tests.avprep.test_page import HOSTILE, sample_members
from tests.browser import PHONE_WIDTH
from tests.conftest import run

CLIP_IDS = "return [...document.querySelectorAll('.clip')].filter(c => !c.hidden)"
CLIP_IDS += ".map(c => c.dataset.id)"


@pytest.fixture(scope="module")
def shards(demo_videos, tmp_path_factory):
    """16 clips of 8 classes and two broken ones."""
    out = tmp_path_factory.mktemp("report") / "train"
    clips, labels = folder_manifest(demo_videos / "train")
    options = ShardSetOptions(SampleOptions(), IsolationOptions(), 4)
    assert build_shard_set(clips, labels, str(out), options, PoolOptions(2)).complete
    return out


@pytest.fixture(scope="module")
def page(shards):
    path = shards.with_name("page.html")
    report(str(shards), str(path), ReportOptions())
    return path


def strange_shards(folder, ids=HOSTILE, per_class=1, seconds=1.0):
    """A set whose ids, classes, paths and failures come from an enemy."""
    members = sample_members(seconds=seconds)
    names = tuple(f"class {n} {text}" for n, text in enumerate(HOSTILE[:-1]))
    labels = LabelSet(tuple(f"/m/{n} {name}" for n, name in enumerate(names)), names)
    settings = ShardSettings(str(folder), labels, SampleOptions(), IsolationOptions(), "<b>f</b>")
    frames = tuple(members[f"{n}.jpg"] for n in range(10))
    samples = int(seconds * 16000)
    sample = EncodedSample(members["flac"], frames, (0.0,) * 10, samples, "pyav")
    clips = [
        Clip(name, (labels.mids[n // per_class % len(names)],), video=f"/v/{name}.mp4", split=name)
        for n, name in enumerate(ids)
    ]
    folder.mkdir()
    name = "shard-000000.tar"
    job = ShardJob(name, tuple(clips))
    with (folder / name).open("wb") as file, ShardWriter(file, job, settings) as shard:
        for clip in clips:
            shard.add(clip, sample)
        index = shard.finish()
    (folder / index_name(name)).write_bytes(index.to_bytes())
    failures = [ClipFailure(text, text, text, "garbage", f"detail {text}") for text in HOSTILE]
    (folder / "failures.csv").write_bytes(failures_csv(failures))
    counts = Counter(label for entry in index.samples for label in entry.labels)
    info = DatasetInfo(
        labels=tuple(zip(labels.mids, labels.names, strict=True)),
        options={"frames": 10, "frame_size": 64, "sample_rate": 16000, "audio": "flac"},
        tools={"<i>tool</i>": "</script>"},
        shards=(ShardInfo(name, len(clips), index.bytes, index.sha256),),
        samples=len(clips),
        clips=len(clips) + len(failures),
        seconds=index.seconds,
        failures={"garbage": len(failures)},
        class_counts=tuple(counts[n] for n in range(len(names))),
        fingerprint="<b>f</b>",
    )
    write_dataset(folder, info)
    return folder


@pytest.mark.parametrize("width", [1280, PHONE_WIDTH])
@pytest.mark.parametrize("dark", [False, True])
def test_page_shows_everything_and_fits_the_screen(page, browser, width, dark):
    browser.open(page, width, dark=dark)
    assert browser.run("return document.title") == "train – shard set report"
    text = browser.run("return document.body.innerText")
    for words in ("16", "of 18 clips", "garbage", "truncated", "circle-tone", "median"):
        assert words in text
    assert len(browser.shown(".clip")) == 16
    assert len(browser.shown(".clip .film button")) == 160
    assert len(browser.shown("#durations .column")) >= 1
    assert browser.overflow() <= 0
    assert browser.console_messages() == []
    assert browser.network_requests() == []
    background = browser.find("body").value_of_css_property("background-color")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == dark


@pytest.mark.parametrize("width", [1280, PHONE_WIDTH])
def test_class_filter_id_search_and_playing_a_clip(page, browser, width):
    browser.open(page, width)
    option = browser.find("#class-filter optgroup option:nth-child(4)")
    name = option.text
    option.click()
    shown = browser.run(CLIP_IDS)
    assert len(shown) == 2
    assert all(video_id.startswith(name) for video_id in shown)
    assert browser.find("#shown").text == "2 of 16 clips"

    audio = browser.shown(".clip audio")[0]
    browser.run("arguments[0].play()", audio)
    browser.wait_until("return arguments[0].currentTime > 0.1", audio)
    browser.wait_until("return arguments[0].ended", audio)
    assert browser.run("return arguments[0].duration", audio) == pytest.approx(1, abs=0.1)

    browser.find("#id-filter").send_keys(shown[1].upper())
    assert browser.run(CLIP_IDS) == [shown[1]]
    browser.find("#id-filter").send_keys("zzz")
    assert browser.run(CLIP_IDS) == []
    assert "No clip of this gallery fits" in browser.find("#none-shown").text
    browser.find("#clear-filters").click()
    assert len(browser.run(CLIP_IDS)) == 16
    assert browser.overflow() <= 0
    assert browser.console_messages() == []
    assert browser.network_requests() == []


def test_a_bar_of_the_histogram_filters_with_the_keyboard_alone(page, browser):
    browser.open(page)
    bar = browser.find("#classes .bar")
    browser.run("arguments[0].focus()", bar)
    bar.send_keys("\n")
    name = bar.text.split("\n")[0]
    assert {video_id.rsplit("_", 2)[0] for video_id in browser.run(CLIP_IDS)} == {name}
    active = "return document.activeElement.id"
    assert browser.run(active) == "class-filter"
    browser.driver.refresh()  # the address keeps the filter
    assert len(browser.run(CLIP_IDS)) == 2


@pytest.mark.parametrize("width", [1280, 390])
def test_classes_without_a_clip_are_counted_and_folded_away(shards, tmp_path, browser, width):
    copy = shutil.copytree(shards, tmp_path / "train")
    info = read_dataset(copy)
    empty = [(f"/m/{n}", f"Empty {n:03}, <b>") for n in reversed(range(300))]
    counts = (*info.class_counts, *[0] * 300)
    write_dataset(copy, replace(info, labels=(*info.labels, *empty), class_counts=counts))
    path = tmp_path / "page.html"
    report(str(copy), str(path), ReportOptions())
    browser.open(path, width)
    assert browser.overflow() <= 0
    assert len(browser.shown("#classes .bar")) == len(info.labels)
    assert "300 without a clip" in browser.find(".tiles").text
    folded = browser.find("#classes details")
    assert folded.text == "300 classes without a clip"
    folded.find_element("tag name", "summary").click()
    named = folded.find_element("tag name", "p").text
    assert named == " · ".join(sorted(name for _, name in empty))
    assert not [o for o in browser.shown("#class-filter option") if "Empty" in o.text]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_list_of_failures_says_what_its_columns_are(page, browser, width):
    browser.open(page, width)
    browser.find("#failures summary").click()
    if browser.shown("#failures thead"):
        heads = [head.text for head in browser.shown("#failures thead th")]
    else:
        heads = browser.run(
            "return [...document.querySelector('#failures tbody tr').cells]"
            ".map(cell => getComputedStyle(cell, '::before').content.split('\"')[1].trim())"
        )
    assert heads == ["Clip", "Cause", "Found"]


def test_failures_are_listed_by_cause(page, browser):
    browser.open(page)
    bars = browser.shown("#failures .bar")
    assert [bar.text.split("\n") for bar in bars] == [["garbage", "1"], ["truncated", "1"]]
    bars[0].click()
    (row,) = browser.shown("#failures tbody tr")
    assert "broken_not_a_video" in row.text
    assert "not a media file" in row.text
    bars[0].click()
    assert len(browser.shown("#failures tbody tr")) == 2


def test_what_comes_from_outside_is_shown_as_text(tmp_path, browser):
    folder = strange_shards(tmp_path / "<script>document.title='owned'<b>")
    path = tmp_path / "page.html"
    report(str(folder), str(path), ReportOptions(title=HOSTILE[1]))
    browser.open(path)
    assert browser.run("return document.title") == f"{HOSTILE[1]} – shard set report"
    assert browser.run("return document.images.length") == len(HOSTILE) * 12
    assert browser.run("return document.querySelectorAll('script').length") == 3
    assert browser.run("return document.querySelectorAll('b, [onerror], [onfocus]').length") == 0
    ids = [word.replace("\x00", "\ufffd") for word in HOSTILE[:-1]] + ["not UTF-8: \\udcff"]
    assert sorted(browser.run(CLIP_IDS)) == sorted(ids)
    rows = browser.run(
        "return [...document.querySelectorAll('tbody td:first-child')].map(e => e.textContent)"
    )
    assert sorted(rows) == sorted(name.replace("\ufffd", "\\x00") for name in ids)
    classes = "return JSON.parse(document.getElementById('summary').textContent).classes"
    assert [entry["name"] for entry in browser.run(classes)] == [
        f"class {n} {text}" for n, text in enumerate(HOSTILE[:-1])
    ]
    for number in range(len(HOSTILE) - 1):
        browser.run(f"document.querySelector('.bar[data-class=\"{number}\"]').click()")
        assert ids[number] in browser.run(CLIP_IDS)
    assert browser.console_messages() == []
    assert browser.network_requests() == []


def test_page_is_the_same_for_the_same_shards_and_seed(shards):
    page = make_report(str(shards), ReportOptions()).page
    assert make_report(str(shards), ReportOptions()).page == page
    few, other = (
        make_report(str(shards), ReportOptions(GalleryOptions(4, seed=seed))).page
        for seed in (0, 1)
    )
    assert few != other


def test_frames_and_sound_are_the_bytes_in_the_shard(shards):
    from avprep.pages.page import data_uri
    from avprep.shards.format import split_members

    text = make_report(str(shards), ReportOptions()).page.decode()
    shard = read_dataset(shards).shards[0].name
    data = (shards / shard).read_bytes()
    for entry in read_index(shards, shard).samples:
        members = split_members(data[entry.offset : entry.offset + entry.size], entry.key)
        assert data_uri("audio/flac", members["flac"]) in text
        for number in range(10):
            assert data_uri("image/jpeg", members[f"{number}.jpg"]) in text


def test_only_the_indexes_and_the_clips_shown_are_read(shards, tmp_path):
    """The same page comes of shards in which everything else was wiped out."""
    copy = shutil.copytree(shards, tmp_path / "train")
    options = ReportOptions(GalleryOptions(3), title="x")
    page = make_report(str(copy), options).page
    shown = re.findall(r'data-id="([^"]+)"', page.decode())
    assert len(shown) == 3
    for shard in read_dataset(copy).shards:
        data = bytearray((copy / shard.name).read_bytes())
        for entry in read_index(copy, shard.name).samples:
            if entry.video_id not in shown:
                data[entry.offset : entry.offset + entry.size] = bytes(entry.size)
        (copy / shard.name).write_bytes(data)
    assert make_report(str(copy), options).page == page


def test_a_url_prefix_gives_the_same_page(shards):
    import fsspec

    store = fsspec.filesystem("memory")
    for path in shards.iterdir():
        store.pipe_file(f"/bucket/sets/train/{path.name}", path.read_bytes())
    location = "memory://bucket/sets/train"
    report(location, "memory://bucket/page.html", ReportOptions())
    local = make_report(str(shards), ReportOptions()).page.decode()
    text = store.cat_file("/bucket/page.html").decode()
    assert text.replace(location, "") == local.replace(str(shards), "")


def test_a_damaged_clip_is_shown_as_such(shards, tmp_path, browser):
    copy = shutil.copytree(shards, tmp_path / "train")
    shard = read_dataset(copy).shards[0].name
    data = bytearray((copy / shard).read_bytes())
    entry = read_index(copy, shard).samples[1]
    data[entry.offset : entry.offset + 512] = bytes(512)
    (copy / shard).write_bytes(data)
    result = command(copy, tmp_path / "page.html")
    assert result.returncode == 0
    assert result.stderr.strip() == f"{entry.video_id}: cannot be read; run `avprep verify {copy}`."
    browser.open(tmp_path / "page.html")
    (card,) = [card for card in browser.shown(".clip") if "Cannot be read" in card.text]
    assert entry.video_id in card.text
    assert shard in card.text
    assert len(browser.shown("audio")) == 15


def command(shards, out, *options):
    return run("avprep", "report", shards, "--out", out, *options)


def test_the_command_says_how_large_the_page_is(shards, tmp_path):
    out = tmp_path / "new folder" / "page.html"
    result = command(shards, out)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        f"{out}: {size(out.stat().st_size)}, 16 clips\n"
        "clips by fault: clipped 0.0%, silent 0.0%, still 0.0%\n"
    )
    facts = json.loads(command(shards, out, "--json", "--clips", "2").stdout)
    assert facts == {
        "page": str(out),
        "bytes": out.stat().st_size,
        "clips": 2,
        "too_large": 0,
        "unreadable": [],
        "incomplete": 0,
        "faults": dict.fromkeys((fault.name for fault in FAULTS), 0),
    }
    assert command(tmp_path / "nowhere", out).returncode == 2


def test_a_set_of_any_clips_stays_within_its_size(tmp_path):
    folder = strange_shards(tmp_path / "set", [f"clip {n}" for n in range(30)], seconds=4.0)
    size = read_dataset(folder).shards[0].bytes
    everything = make_report(str(folder), ReportOptions(GalleryOptions(30), max_mb=1000))
    assert (everything.clips, everything.too_large) == (30, 0)
    assert len(everything.page) > size
    small = make_report(str(folder), ReportOptions(GalleryOptions(30), max_mb=1))
    assert 0 < small.clips < 30
    assert small.clips + small.too_large == 30
    assert len(small.page) < 1e6
    assert f"{small.too_large} more were drawn and left out" in small.page.decode()


def test_an_unlabelled_set_without_failures_has_a_page(shards, tmp_path, browser):
    copy = shutil.copytree(shards, tmp_path / "train")
    info = read_dataset(copy)
    for shard in info.shards:
        index = read_index(copy, shard.name)
        bare = replace(index, samples=tuple(replace(e, labels=()) for e in index.samples))
        (copy / index_name(shard.name)).write_bytes(bare.to_bytes())
    bare = replace(info, labels=(), class_counts=(), failures={}, clips=info.samples)
    write_dataset(copy, bare)
    (copy / "failures.csv").unlink()
    update_dataset(copy, fbank={"mean": -4.25, "std": 4.5, "samples": 16, "target_length": 1024})
    report(str(copy), str(tmp_path / "page.html"), ReportOptions())
    browser.open(tmp_path / "page.html")
    text = browser.run("return document.body.innerText")
    assert "Every clip became a sample" in text
    assert "-4.25" in text
    assert browser.find("#shown").text == "16 of 16 clips"
    assert not browser.shown("#classes, #class-filter")
    assert browser.console_messages() == []


def test_failures_that_are_not_csv_are_an_error_that_names_the_file(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "train")
    (copy / "failures.csv").write_text(f"video_id,cause\n{'x' * 200_000},crashed\n")
    with pytest.raises(UserError, match=r"failures\.csv: cannot be read as CSV \(field"):
        make_report(str(copy), ReportOptions())


def test_a_missing_index_is_an_error_that_names_it(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "train")
    (copy / "shard-000001.index.json").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.index\.json: missing"):
        make_report(str(copy), ReportOptions())
    other = replace(read_index(shards, "shard-000001.tar"), sha256="another")
    (copy / "shard-000001.index.json").write_bytes(other.to_bytes())
    with pytest.raises(UserError, match=r"shard-000001\.index\.json: .* disagree"):
        make_report(str(copy), ReportOptions())


# What goes into the gallery


def entries(labels_of_each):
    return [SampleEntry("", f"clip{n}", 0, 1, labels) for n, labels in enumerate(labels_of_each)]


def choose(samples, **options):
    chooser = ClipChooser(GalleryOptions(**options))
    for entry in samples:
        chooser.offer("shard", entry)
    return [candidate.entry for candidate in chooser.choose()]


LABELS = st.lists(st.sets(st.integers(0, 5), max_size=3).map(tuple), max_size=60)


@given(LABELS, st.integers(0, 40), st.none() | st.integers(1, 5), st.integers(0, 9))
def test_choice_is_even_over_the_classes_and_no_clip_comes_twice(labels, clips, per_class, seed):
    samples = entries(labels)
    chosen = choose(samples, clips=clips, per_class=per_class, seed=seed)
    assert len({entry.video_id for entry in chosen}) == len(chosen) <= clips
    assert chosen == choose(samples[::-1], clips=clips, per_class=per_class, seed=seed)
    if per_class is None:
        assert len(chosen) == min(clips, len(samples))
    offered = Counter(label for entry in samples for label in entry.labels or (-1,))
    shown = Counter(label for entry in chosen for label in entry.labels or (-1,))
    if len(chosen) < clips:  # then every class has all that it can have
        for label, count in offered.items():
            assert shown[label] >= min(count, per_class or count)


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 40))
def test_no_class_has_two_clips_more_than_another_that_has_some_left(labels, clips):
    samples = entries([(label,) for label in labels])
    shown = Counter(label for entry in choose(samples, clips=clips) for label in entry.labels)
    left = [label for label, count in Counter(labels).items() if count > shown[label]]
    assert all(shown[other] <= shown[label] + 1 for label in left for other in set(labels))


def test_per_class_alone_sets_the_number_of_clips():
    samples = entries([(n % 50,) for n in range(500)])
    assert len(choose(samples, per_class=3)) == 150
    assert len(choose(samples)) == 32
    assert choose(samples, seed=1) != choose(samples, seed=2)


def test_choice_favours_no_clip():
    samples = entries([(0,)] * 20)
    counts = Counter(choose(samples, clips=1, seed=seed)[0].video_id for seed in range(2000))
    # Chi-square of 19 degrees of freedom: 43.8 is exceeded once in a thousand.
    assert sum((counts[entry.video_id] - 100) ** 2 / 100 for entry in samples) < 43.8


@given(st.lists(st.integers(1, 100_000), max_size=30), st.integers(0, 500_000))
def test_clips_within_the_size_are_the_first_that_fit(sizes, limit):
    candidates = [
        Candidate(n, "s", SampleEntry("", str(n), 0, size, ())) for n, size in enumerate(sizes)
    ]
    kept, left_out = within_size(candidates, limit)
    assert len(kept) + left_out == len(candidates)
    cost = {c.entry.video_id: cost_on_page(c.entry) for c in candidates}
    assert sum(cost[c.entry.video_id] for c in kept) <= limit
    if left_out:
        smallest = min(cost[c.entry.video_id] for c in candidates if c not in kept)
        assert sum(cost[c.entry.video_id] for c in kept) + smallest > limit


# Numbers


@given(st.lists(st.floats(0.025, 5000), min_size=1, max_size=200), st.sampled_from([0.1, 0.5, 1]))
def test_histogram_counts_every_value_in_its_bin(values, finest):
    result = histogram(np.array(values), finest)
    assert sum(result.counts) == len(values)
    assert len(result.counts) == len(result.edges) - 1 <= 33
    assert result.edges[0] <= min(values) + 1e-3
    width = result.edges[1] - result.edges[0]
    assert width >= finest * 0.999
    for number, count in enumerate(result.counts[:-1]):
        start, stop = result.edges[number], result.edges[number + 1]
        slack = width * 1e-4
        assert sum(start + slack <= v < stop - slack for v in values) <= count
        assert count <= sum(start - slack <= v < stop + slack for v in values)


def test_histogram_of_equal_values_is_one_round_bin():
    result = histogram(np.full(7, 10.0), 0.1)
    assert (result.edges, result.counts, result.has_tail) == ((10.0, 10.1), (7,), False)
    assert histogram(np.array([]), 0.1) is None


def test_a_few_long_clips_do_not_squeeze_the_rest():
    result = histogram(np.array([10.0] * 999 + [3600.0]), 0.1)
    assert (result.edges, result.counts, result.has_tail) == ((10.0, 10.1), (1000,), True)


@pytest.mark.parametrize(
    ("width", "rounded"), [(0.1, 0.1), (0.11, 0.2), (0.2, 0.2), (0.3, 0.5), (5, 5), (51, 100)]
)
def test_bin_widths_are_round(width, rounded):
    assert round_up(width) == pytest.approx(rounded)


def test_failures_listed_are_spread_over_the_causes():
    failures = [ClipFailure(f"{n}", "", "decode", "timeout", "") for n in range(100)]
    failures += [ClipFailure(f"x{n}", "", "decode", "crash", "") for n in range(3)]
    some = some_of_each_cause(failures, 10)
    assert Counter(f.cause for f in some) == {"timeout": 7, "crash": 3}
    assert some == [f for f in failures if f in some]
    assert some_of_each_cause(failures, 0) == []
    assert some_of_each_cause(failures, 1000) == failures


def test_durations_are_readable():
    assert [readable_duration(n) for n in (3.21, 90, 5400, 2e7)] == [
        *("3.2 s", "1.5 min", "1.5 h", "5,556 h")
    ]
