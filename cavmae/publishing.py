"""Trained models on the Hugging Face hub, with a card that says how a run made them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.errors import UserError
from avprep.option import Option, Options, options_of
from cavmae.checkpoints import load_checkpoint, weights_file
from cavmae.checkpoints.card import About, DataSet, Evaluation, model_card
from cavmae.checkpoints.hub import hub_errors
from cavmae.checkpoints.pretrained import push_pretrained, save_pretrained
from cavmae.evaluation.options import VALIDATION_FRAMES
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.options import AUDIO_MODES, PushOptions
from cavmae.train.folder import CONFIG_FILE
from cavmae.train.options import FinetuneRun, PretrainRun
from cavmae.train.records import TIMINGS

_CARD = "README.md"
# A recipe says what results depend on, and not where things lie or who trains.
_NOT_IN_RECIPES = frozenset(
    (
        *("shards", "val_shards", "out", "init", "cache", "select", "val_select"),
        *("device", "workers", "resume", "track", "log_steps"),
        *("checkpoint_steps", "checkpoint_minutes", "keep_checkpoints"),
    )
)
_NOT_MEASURED = frozenset((*TIMINGS, "step", "epoch", "split", "lr", "grad_norm"))


@dataclass(frozen=True)
class Pushed:
    """A model on the hub, or in the folder that would be pushed.

    Attributes:
        file: the weights that were taken.
        where: the URL of the commit, or the folder.
    """

    file: Path
    where: str


def push(source: str | Path, repo: str, options: PushOptions | None = None) -> Pushed:
    """Push a model to the hub, with a card of what its run was and measured.

    Args:
        source: a run (its best weights, else its last) or a checkpoint.
        repo: `org/name`; made if it is not there.
        options: where in the repository, and what the card says.

    Raises:
        UserError: not a checkpoint, huggingface_hub is not installed, or the hub refuses.
        WorkFailed: the hub does not answer.
    """
    options = options or PushOptions()
    file = weights_file(source)
    model = load_checkpoint(file)
    about = _about(model, file, options.license)
    if options.dry_run is not None:
        write_folder(model, repo, about, options.dry_run)
        return Pushed(file, str(options.dry_run))
    if options.private:
        _check_private(repo)
    commit = push_pretrained(
        model, repo, about, private=options.private or None, branch=options.revision
    )
    return Pushed(file, commit)


def write_folder(model: CAVMAE | CAVMAEClassifier, repo: str, about: About, folder: Path) -> None:
    """Write what would be pushed.

    Raises:
        UserError: the folder is not empty, or huggingface_hub is not installed.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty. Give a new folder.")
    with hub_errors(str(folder), repo):
        card = str(model_card(model, repo, about))
    save_pretrained(model, folder)
    storage.write_atomic(folder / _CARD, card.encode())


def _check_private(repo: str) -> None:
    """Raises UserError where a repository is there and public."""
    with hub_errors(f"hf://{repo}", repo):
        from huggingface_hub import HfApi

        is_public = HfApi().repo_exists(repo) and not HfApi().model_info(repo).private
    if is_public:
        raise UserError(
            f"hf://{repo}: is public already. Make it private in its settings first, or leave "
            "--private out."
        )


def _about(model: CAVMAE | CAVMAEClassifier, file: Path, license: str) -> About:
    """What the run of a file of weights tells; nothing more where the file is alone."""
    run = _run_of(file)
    if run is None:
        return About(license)
    config = json.loads((run / CONFIG_FILE).read_bytes())
    measured = _measured(run, file)
    evaluations = []
    if measured and config.get("val_shards"):
        mode = model.metadata.get("mode", "")
        frames = "none" if mode in AUDIO_MODES else str(VALIDATION_FRAMES)
        data = _data_set(config, "val_shards")
        evaluations = [Evaluation(data, frames, measured, mode)]
    return About(
        license, _starting_point(config), [_data_set(config, "shards")], evaluations,
        _recipe(FinetuneRun if isinstance(model, CAVMAEClassifier) else PretrainRun, config),
    )  # fmt: skip


def _run_of(file: Path) -> Path | None:
    """The run that a file of weights lies in, at its top or as a checkpoint."""
    for folder in file.absolute().parents[:3]:
        config = folder / CONFIG_FILE
        if config.is_file() and b'"run_id"' in config.read_bytes():
            return folder
    return None


def _measured(run: Path, file: Path) -> dict[str, float]:
    """What was measured of a file's weights on the validation clips, by name."""
    log, result = run / "log.csv", run / "result.json"
    rows = []
    if log.is_file():
        with log.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["split"] == "validation"]
    facts = json.loads(result.read_bytes()) if result.is_file() else {}
    found = [_figures(row) for row in rows]
    average = _figures(facts.get("average", {}))
    if file.parent != run:  # RUN/checkpoints/step-00000100/model.safetensors
        step = file.parent.name.rpartition("-")[2]
        return next((_figures(row) for row in rows if int(row["step"]) == int(step)), {})
    if file.stem == "average":
        return average
    if file.stem == "best":
        metric = "accuracy" if "best_accuracy" in facts else "map"
        return max((*found, average), key=lambda one: one.get(metric, -1.0))
    return found[-1] if found and file.stem == "model" else {}


def _figures(row: Mapping[str, str | float | None]) -> dict[str, float]:
    """Of a row of the log, what was measured and could be."""
    found = {
        name: float(value)
        for name, value in row.items()
        if value not in ("", None) and name not in _NOT_MEASURED
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _data_set(config: Mapping[str, Any], option: str) -> DataSet:
    """A shard set of a run, by the last part of its place: the rest is nobody's business."""
    name = str(config[option]).rstrip("/").rpartition("/")[2]
    return DataSet(name, str(config.get(f"{option}_fingerprint", "")))


def _starting_point(config: Mapping[str, Any]) -> str:
    """The weights that a run began with."""
    init = str(config.get("init") or "")
    return init if init.startswith("hf://") else Path(init).name


def _recipe(kind: type[Options], config: Mapping[str, Any]) -> str:
    """The options of a run that are no defaults, as a file that `--config` takes."""
    name = "finetune" if kind is FinetuneRun else "pretrain"
    lines = [_toml(option, config[option.name]) for option in _told(kind, config)]
    batch = f"# Each step takes {config.get('global_batch')} clips."
    return "\n".join((batch, f"[{name}]", *lines))


def _told(kind: type[Options], config: Mapping[str, Any]) -> Iterator[Option]:
    for option in options_of(kind):
        value = config.get(option.name)
        is_default = value in (None, option.default, "custom") or value == []
        if option.name not in _NOT_IN_RECIPES and not is_default:
            yield option


def _toml(option: Option, value: Any) -> str:
    # JSON's numbers, texts, lists and truth values are TOML's, too.
    return f"{option.flag.lstrip('-')} = {json.dumps(value, ensure_ascii=False)}"
