"""Prediction of raw files: what eval computes, with whatever streams a file has."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cavmae
from avprep.decode import DecodeOptions, decode_clip
from avprep.errors import DecodeError, UserError, WorkFailed
from avprep.jobs import PoolOptions
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from cavmae.checkpoints import save_model
from cavmae.cli.predict import predict
from cavmae.data import ShardSet
from cavmae.distributed import World
from cavmae.evaluation.classify import ClassifyOptions, classify_together
from cavmae.evaluation.options import PredictOptions, RetrieveOptions
from cavmae.evaluation.predict import Predictor
from cavmae.evaluation.retrieve import retrieve
from cavmae.evaluation.trained import load_trained
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig
from tests.media import run_ffmpeg

CONFIG = ModelConfig.preset("tiny", audio_frames=64, embed_dim=32, num_heads=2)
CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def test_set(demo_videos, tmp_path_factory):
    """The demo's test videos (1 s each, the model sees 0.64 s), and their shards."""
    clips, labels = folder_manifest(demo_videos / "test")
    out = tmp_path_factory.mktemp("predict") / "shards"
    options = ShardSetOptions(SampleOptions(audio="wav"), IsolationOptions())
    build_shard_set(clips, labels, str(out), options, PoolOptions(2))
    return clips, labels, out


@pytest.fixture(scope="module")
def checkpoints(test_set, tmp_path_factory):
    """A classifier for each mode it can be trained in; random weights do."""
    _, labels, _ = test_set
    folder = tmp_path_factory.mktemp("classifiers")
    for mode in ("multimodal", "audioonly", "videoonly"):
        torch.manual_seed(5)
        model = CAVMAEClassifier(CONFIG, len(labels))
        torch.nn.init.normal_(model.mlp_head[1].weight, std=0.5)
        metadata = {
            "fbank_mean": "-6.0",
            "fbank_std": "5.0",
            "mode": mode,
            "criterion": "ce",
            "labels": json.dumps(labels.mids),
            "label_names": json.dumps([f"name of {mid}" for mid in labels.mids]),
        }
        save_model(folder / f"{mode}.safetensors", model, metadata)
    return folder


@pytest.fixture(scope="module")
def odd_files(demo_clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd files")
    run_ffmpeg("-i", demo_clip, "-vn", "-c", "copy", folder / "sound.mp4")
    run_ffmpeg("-i", demo_clip, "-an", "-c", "copy", folder / "picture.mp4")
    run_ffmpeg("-i", demo_clip, "-vn", folder / "sound.wav")
    (folder / "cut.mp4").write_bytes(demo_clip.read_bytes()[:3000])
    (folder / "text.mp4").write_text("no video at all")
    return folder


def predicted(path, checkpoint, **options):
    return cavmae.predict(path, PredictOptions(checkpoint=checkpoint, device="cpu", **options))


def of_eval(checkpoint, shards, mode, frames="all", batch_size=1):
    trained = load_trained(checkpoint)
    options = ClassifyOptions(
        mode=mode, criterion="ce", frames=frames, batch_size=batch_size, workers=0
    )
    found = classify_together(trained.model, trained.frontend, ShardSet.open(shards), options, CPU)
    return dict(zip(found.video_ids, found.probabilities, strict=True))


def scores(prediction):
    ordered = sorted(prediction.labels, key=lambda label: label.index)
    return np.array([label.score for label in ordered])


@pytest.mark.parametrize(
    ("mode", "frames"),
    [("multimodal", "all"), ("multimodal", 7), ("audioonly", "all"), ("videoonly", "middle")],
)
def test_a_prediction_is_bit_for_bit_what_eval_computes_from_a_shard(
    test_set, checkpoints, mode, frames
):
    clips, _, shards = test_set
    checkpoint = checkpoints / f"{mode}.safetensors"
    expected = of_eval(checkpoint, shards, mode, frames)
    options = PredictOptions(checkpoint=checkpoint, use_frames=frames, device="cpu")
    with Predictor(options) as predictor:
        for clip in clips[:2]:
            found = scores(predictor.predict(clip.video))
            assert np.array_equal(found, expected[clip.video_id])
    batched = of_eval(checkpoint, shards, mode, frames, batch_size=8)
    assert all(np.allclose(batched[name], expected[name], atol=1e-6) for name in expected)


def test_a_file_with_one_stream_is_classified_by_it(test_set, checkpoints, odd_files, demo_clip):
    _, _, shards = test_set
    checkpoint = checkpoints / "multimodal.safetensors"
    for name, mode in (
        ("sound.mp4", "missingaudioonly"),
        ("picture.mp4", "missingvideoonly"),
    ):
        prediction = predicted(odd_files / name, checkpoint)
        assert prediction.mode == mode
        # The streams were copied, so they are those of the whole clip in the shards.
        assert np.array_equal(scores(prediction), of_eval(checkpoint, shards, mode)[demo_clip.stem])
    assert predicted(odd_files / "sound.wav", checkpoint).mode == ("missingaudioonly")
    assert predicted(demo_clip, checkpoint).mode == "multimodal"


def test_a_model_of_one_modality_needs_just_that(checkpoints, odd_files):
    audio, video = checkpoints / "audioonly.safetensors", checkpoints / "videoonly.safetensors"
    assert predicted(odd_files / "sound.mp4", audio).mode == "audioonly"
    assert predicted(odd_files / "picture.mp4", video).mode == "videoonly"
    with pytest.raises(DecodeError, match="no-audio"):
        predicted(odd_files / "picture.mp4", audio)
    with pytest.raises(DecodeError, match="no-video"):
        predicted(odd_files / "sound.mp4", video)


def test_a_mode_that_is_asked_for_is_not_replaced(checkpoints, odd_files, demo_clip):
    checkpoint = checkpoints / "multimodal.safetensors"
    with pytest.raises(DecodeError, match="no-audio"):
        predicted(odd_files / "picture.mp4", checkpoint, mode="multimodal")
    with pytest.raises(DecodeError, match="no-video"):
        predicted(odd_files / "sound.mp4", checkpoint, mode="multimodal")
    whole, alone = (
        predicted(path, checkpoint, mode="missingaudioonly")
        for path in (demo_clip, odd_files / "sound.mp4")
    )
    assert whole.labels == alone.labels


def test_a_picture_is_classified_by_itself(checkpoints, demo_clip, tmp_path):
    run_ffmpeg("-i", demo_clip, "-frames:v", 1, "-q:v", 1, tmp_path / "one.jpg")
    found = predicted(tmp_path / "one.jpg", checkpoints / "multimodal.safetensors")
    assert found.mode == "missingvideoonly"
    assert np.isfinite(scores(found)).all()


@pytest.mark.parametrize("decoder", ["pyav", "ffmpeg"])
def test_decoding_can_leave_a_stream_out(demo_clip, odd_files, decoder):
    whole = decode_clip(demo_clip, options=DecodeOptions(decoder=decoder))
    sound = decode_clip(odd_files / "sound.mp4", options=DecodeOptions(0, decoder=decoder))
    picture = decode_clip(
        odd_files / "picture.mp4", options=DecodeOptions(missing_audio="omit", decoder=decoder)
    )
    assert np.array_equal(sound.pcm, whole.pcm)
    assert sound.frames.shape == (0, 224, 224, 3)
    assert np.array_equal(picture.frames, whole.frames)
    assert picture.pcm.shape == (0,)
    with pytest.raises(DecodeError, match="no-audio"):
        decode_clip(odd_files / "picture.mp4", options=DecodeOptions(0, decoder=decoder))


def test_a_segment_is_predicted_as_if_it_were_the_clip(checkpoints, demo_clip, tmp_path):
    run_ffmpeg("-stream_loop", "3", "-i", demo_clip, "-c", "copy", tmp_path / "long.mkv")
    checkpoint = checkpoints / "multimodal.safetensors"
    whole = predicted(tmp_path / "long.mkv", checkpoint)
    part = predicted(tmp_path / "long.mkv", checkpoint, start=0.5, end=1.5)
    assert not np.array_equal(scores(whole), scores(part))
    with pytest.raises(DecodeError, match="too-short"):
        predicted(tmp_path / "long.mkv", checkpoint, start=60.0, end=61.0)


def command(*arguments):
    return CliRunner().invoke(predict, ["--device", "cpu", *map(str, arguments)])


def test_files_and_folders_become_one_row_each_and_broken_ones_say_why(
    checkpoints, odd_files, demo_clip, tmp_path
):
    checkpoint = checkpoints / "multimodal.safetensors"
    files = [odd_files, demo_clip, tmp_path / "none.mp4", odd_files / "sound.wav"]
    result = command("--checkpoint", checkpoint, "--json", "--top", 2, *files)
    assert result.exit_code == 0, result.exception
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    folder = ["cut.mp4", "picture.mp4", "sound.mp4", "text.mp4"]
    assert [row["path"] for row in rows] == [
        *(str(odd_files / name) for name in folder), *map(str, files[1:])
    ]  # fmt: skip
    assert [row.get("cause") or row["mode"] for row in rows] == [
        "truncated", "missingvideoonly", "missingaudioonly", "garbage",
        "multimodal", "missing", "missingaudioonly",
    ]  # fmt: skip
    best, second = rows[4]["labels"]
    assert best["score"] > second["score"]
    assert best["name"] == f"name of {best['mid']}"

    limited = command("--checkpoint", checkpoint, "--max-failures", "2", *files)
    assert isinstance(limited.exception, WorkFailed)
    assert "3 of 7" in str(limited.exception)
    assert f"{odd_files / 'cut.mp4'}\n" in limited.stdout
    assert "truncated:" in limited.stdout
    assert f"{odd_files / 'sound.mp4'}  (missingaudioonly)" in limited.stdout


def test_not_one_good_file_is_a_failure_and_a_pretrained_model_an_error(
    checkpoints, odd_files, tmp_path
):
    broken = command("--checkpoint", checkpoints / "multimodal.safetensors", odd_files / "cut.mp4")
    assert isinstance(broken.exception, WorkFailed)
    save_model(tmp_path / "pretrained.safetensors", CAVMAE(CONFIG))
    result = command("--checkpoint", tmp_path / "pretrained.safetensors", odd_files / "cut.mp4")
    assert isinstance(result.exception, UserError)
    assert "cavmae finetune" in str(result.exception)


def test_names_come_from_a_csv_where_the_checkpoint_has_none(tmp_path, demo_clip):
    torch.manual_seed(0)
    save_model(tmp_path / "bare.safetensors", CAVMAEClassifier(CONFIG, 2))
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/0,Owl\n1,/m/1,Ox\n")
    (tmp_path / "three.csv").write_text(
        "index,mid,display_name\n0,/m/0,Owl\n1,/m/1,Ox\n2,/m/2,Elk\n"
    )
    bare = command("--checkpoint", tmp_path / "bare.safetensors", demo_clip)
    assert "class 0" in bare.stdout
    for said in ("stores no mode", "stores no criterion", "its 2 classes are numbered"):
        assert said in bare.stderr
    with pytest.warns(UserWarning, match="stores no criterion; bce is assumed"):
        predicted(demo_clip, tmp_path / "bare.safetensors")
    named = ("--checkpoint", tmp_path / "bare.safetensors", demo_clip, "--labels")
    known = command(*named, tmp_path / "labels.csv", "--criterion", "ce", "--mode", "multimodal")
    assert "Owl" in known.stdout
    rows = [line.split() for line in known.stdout.splitlines()[1:]]
    assert sum(float(score) for score, _ in rows) == pytest.approx(1, abs=1e-3)  # softmax
    assert known.stderr.startswith("Warning: ")
    assert "taken for those of --labels, in that order" in known.stderr
    assert len(known.stderr.splitlines()) == 1
    wrong = command(*named, tmp_path / "three.csv")
    assert isinstance(wrong.exception, UserError)
    assert "2 classes, the label set has 3" in str(wrong.exception)


def test_frames_are_decoded_at_the_models_size(demo_clip, tmp_path):
    torch.manual_seed(0)
    small = ModelConfig.preset("tiny", audio_frames=64, embed_dim=32, num_heads=2, image_size=96)
    save_model(tmp_path / "small.safetensors", CAVMAEClassifier(small, 2))
    prediction = predicted(demo_clip, tmp_path / "small.safetensors")
    assert len(prediction.labels) == 2


def test_the_similarity_is_that_of_retrieved_features_per_frame(test_set, tmp_path, demo_clip):
    clips, _, shards = test_set
    torch.manual_seed(5)
    save_model(tmp_path / "pretrained.safetensors", CAVMAE(CONFIG))
    options = PredictOptions(
        checkpoint=tmp_path / "pretrained.safetensors", similarity=True, device="cpu"
    )
    with Predictor(options) as predictor:
        found = predictor.predict(clips[1].video)
    assert (found.labels, found.mode) == ((), "multimodal")
    assert [one.frame for one in found.similarity] == list(range(10))
    seconds = [one.seconds for one in found.similarity]
    assert seconds == sorted(seconds)
    assert seconds[0] < seconds[-1]
    number = [ShardSet.open(shards).video_id(n) for n in range(len(clips))].index(clips[1].video_id)
    for frame in (0, 7):
        retrieved = tmp_path / f"{frame}.npz"
        retrieve(
            RetrieveOptions(
                shards=str(shards), checkpoint=options.checkpoint, frames=frame, workers=0,
                similarities=retrieved, device="cpu",
            )
        )  # fmt: skip
        with np.load(retrieved) as stored:
            expected = stored["similarity"][number, number]
        assert found.similarity[frame].cosine == pytest.approx(float(expected), abs=1e-5)


def test_similarities_of_folders_are_rows_and_a_table(checkpoints, odd_files, demo_clip, tmp_path):
    checkpoint, table = checkpoints / "multimodal.safetensors", tmp_path / "new" / "s.csv"
    line = ("--checkpoint", checkpoint, "--similarity", "--similarity-csv", table, "--frames", 4)
    result = command(*line, "--json", odd_files, demo_clip)
    assert result.exit_code == 0, result.exception
    assert "does not train sounds to match pictures" in result.stderr
    rows = {row["path"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert rows[str(odd_files / "sound.mp4")]["similarity"] == []
    (one,) = rows[str(demo_clip)]["similarity"]
    assert (one["frame"], -1 <= one["cosine"] <= 1) == (4, True)
    assert rows[str(demo_clip)]["labels"]
    with table.open(newline="") as file:
        (written,) = csv.DictReader(file)
    assert written == {
        "path": str(demo_clip), "frame": "4", "seconds": str(one["seconds"]),
        "similarity": str(one["cosine"]),
    }  # fmt: skip
    text = command("--checkpoint", checkpoint, "--similarity", odd_files / "sound.mp4", demo_clip)
    assert "sound and frame: one of them is missing" in text.stdout
    assert text.stdout.count(" s)") == 10


def test_a_model_that_cannot_compare_is_refused(checkpoints, demo_clip, tmp_path):
    audio = command(
        "--checkpoint", checkpoints / "audioonly.safetensors", "--similarity", demo_clip
    )
    assert "mode audioonly takes sound only, but --similarity compares" in str(audio.exception)
    save_model(
        tmp_path / "av.safetensors", CAVMAE(replace(CONFIG, objective="av-mae", modality_depth=0))
    )
    joint = command("--checkpoint", tmp_path / "av.safetensors", "--similarity", demo_clip)
    assert "never compares sounds with images" in str(joint.exception)
    table = ("--similarity-csv", tmp_path / "s.csv")
    lone = command("--checkpoint", checkpoints / "multimodal.safetensors", *table, demo_clip)
    assert "give --similarity, too" in str(lone.exception)
