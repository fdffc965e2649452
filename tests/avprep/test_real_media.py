"""Real clips give the published samples and frames."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import webdataset as wds
from PIL import Image

from avprep.audio import decode_audio
from avprep.decode import DecodeOptions, decode_clip
from avprep.jobs import PoolOptions
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set

GOLDEN_IDS = ("00W1lcxW-WU_40.000", "KlsG1EnBEjc_000361")


def golden_frames(shared, video_id):
    folder = shared / "golden" / "extract" / "frames"
    return [
        np.asarray(Image.open(folder / f"frame_{number}" / f"{video_id}.jpg").convert("RGB"))
        for number in range(10)
    ]


def psnr(a, b):
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


@pytest.mark.parametrize("video_id", GOLDEN_IDS)
def test_audio_is_the_published_within_one_step(shared, video_id):
    expected, rate = soundfile.read(
        shared / "golden" / "extract" / "audio" / f"{video_id}.wav", dtype="int16"
    )
    pcm = decode_clip(shared / "media" / f"{video_id}.mp4").pcm
    assert rate == 16000
    assert len(pcm) == len(expected)
    assert np.abs(pcm.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("video_id", GOLDEN_IDS)
@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_frames_are_the_published_and_not_their_neighbours(shared, video_id, decoder):
    media = decode_clip(
        shared / "media" / f"{video_id}.mp4", options=DecodeOptions(decoder=decoder)
    )
    golden = golden_frames(shared, video_id)
    for number, frame in enumerate(media.frames):
        own = psnr(frame, golden[number])
        assert own > 30
        for neighbour in (number - 1, number + 1):
            if 0 <= neighbour < 10 and psnr(golden[number], golden[neighbour]) < 40:
                assert own > psnr(frame, golden[neighbour])


def test_real_clips_survive_the_shard_round_trip(shared, tmp_path):
    clips, labels = folder_manifest(shared / "media")
    report = build_shard_set(
        clips,
        labels,
        str(tmp_path / "shards"),
        ShardSetOptions(SampleOptions(), IsolationOptions()),
        PoolOptions(2),
    )
    assert (report.samples, report.failures) == (3, ())
    urls = [str(path) for path in (tmp_path / "shards").glob("*.tar")]
    samples = {
        sample["json"]["video_id"]: sample
        for sample in wds.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8")
    }
    assert samples.keys() == {"nasa", *GOLDEN_IDS}
    for video_id in GOLDEN_IDS:
        sample = samples[video_id]
        assert len(decode_audio(sample["flac"])) == sample["json"]["num_samples"]
        for number, expected in enumerate(golden_frames(shared, video_id)):
            assert psnr(sample[f"{number}.jpg"], expected) > 30
