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
from cavmae.checkpoints.hub import hub_errors, is_hub_url
from cavmae.checkpoints.pretrained import push_pretrained, save_pretrained
from cavmae.evaluation.options import VALIDATION_FRAMES
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.options import PushOptions, frames_given, read_shares
from cavmae.train.folder import parsed_config
from cavmae.train.options import FinetuneRun, PretrainRun
from cavmae.train.place import CONFIG_FILE
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
_METRICS = ("accuracy", "map", "auc", "d_prime")
_NOT_MEASURED = frozenset((*TIMINGS, "step", "epoch", "split", "lr", "grad_norm"))


@dataclass(frozen=True)
class Pushed:
    """A model on the hub, or in the folder that would be pushed.

    Attributes:
        file: the weights pushed.
        where: the URL of the commit, or the folder.
    """

    file: Path
    where: str


def push(source: str | Path, repo: str, options: PushOptions | None = None) -> Pushed:
    """Push a model to the hub, with a card of its run and its figures.

    Args:
        source: a run (its best weights, else its last) or a checkpoint.
        repo: `org/name`; created if it does not exist.
        options: where in the repository, and what the card says.

    Raises:
        UserError: not a checkpoint, huggingface_hub is not installed, or the hub refuses.
        WorkFailed: the hub does not answer.
    """
    options = options or PushOptions()
    file = weights_file(source)
    model = load_checkpoint(file)
    about = _about(model, source, file, options)
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


def _about(
    model: CAVMAE | CAVMAEClassifier, source: str | Path, file: Path, options: PushOptions
) -> About:
    """What is known of a file of weights; less where it lies in no run."""
    evaluations = [one for path in options.evaluations for one in _evaluated(path, file)]
    place = _place(source, file)
    found = _run_of(place)
    if found is None:
        return About(options.license, evaluations=evaluations)
    run, config = found
    measured = _measured(run, place)
    if measured and config.get("val_shards"):
        mode = model.metadata.get("mode", "")
        frames = str(frames_given(mode, VALIDATION_FRAMES))
        (data,) = _data_sets(config, "val_shards")
        evaluations.append(Evaluation(data, frames, measured, mode))
    return About(
        options.license, _starting_point(config), _data_sets(config, "shards"), evaluations,
        _recipe(FinetuneRun if isinstance(model, CAVMAEClassifier) else PretrainRun, config),
    )  # fmt: skip


def _place(source: str | Path, file: Path) -> str:
    """Where weights lie, which in a store is not where their copy does."""
    if is_hub_url(source) or not storage.is_url(source):
        return str(file.absolute())
    return str(source) if str(source).endswith(file.name) else storage.join(source, file.name)


def _run_of(place: str) -> tuple[str, dict[str, Any]] | None:
    """The run that weights lie in, at its top or as a checkpoint, and its config."""
    folder = place
    for _ in range(3):
        folder = folder.rpartition("/")[0]
        place = storage.join(folder, CONFIG_FILE)
        config = storage.read_if_there(place)
        if config is not None and b'"run_id"' in config:
            return folder, parsed_config(config, place)
    return None


def _measured(run: str, place: str) -> dict[str, float]:
    """What was measured of weights on the validation clips, by name.

    Raises:
        UserError: a file that says it is damaged.
    """
    log = storage.read_if_there(storage.join(run, "log.csv")) or b""
    result = storage.read_if_there(storage.join(run, "result.json")) or b"{}"
    try:
        rows = [*csv.DictReader(log.decode().splitlines())]
        validations = {
            f"step-{int(row['step']):08}": _figures(row)
            for row in rows
            if row["split"] == "validation"
        }
        facts = json.loads(result)
        average = _figures(facts.get("average", {}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise UserError(
            f"{run}: its log.csv or result.json is damaged ({error!r}). Put back whole copies, or "
            "delete the damaged one to push without what it says."
        ) from error
    folder, _, name = place.rpartition("/")
    if folder != run:  # RUN/checkpoints/step-00000100/model.safetensors
        return validations.get(folder.rpartition("/")[2], {})
    if name == "average.safetensors":
        return average
    if name == "best.safetensors":
        metric = "accuracy" if "best_accuracy" in facts else "map"
        return max((*validations.values(), average), key=lambda one: one.get(metric, -1.0))
    is_last = name == "model.safetensors"
    return [*validations.values()][-1] if validations and is_last else {}


def _evaluated(path: Path, file: Path) -> Iterator[Evaluation]:
    """What `cavmae eval --json` printed into a file.

    Raises:
        UserError: it cannot be read, or is about other weights.
    """
    try:
        found = json.loads(path.read_bytes())
        measured = Path(found["checkpoint"])
        data = DataSet(_last_part(found["shards"]), found["shards_fingerprint"])
        of_modes = found.get("modes") or {found["mode"]: found}
        evaluations = [
            Evaluation(data, str(one["frames"]), _figures({n: one[n] for n in _METRICS}), mode)
            for mode, one in of_modes.items()
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: is not what `cavmae eval --json` prints ({type(error).__name__}: {error})."
        ) from error
    if not measured.exists() or not measured.samefile(file):
        raise UserError(f"{path}: was measured on {measured}. Evaluate {file}, which is pushed.")
    yield from evaluations


def _figures(row: Mapping[str, str | float | None]) -> dict[str, float]:
    """Of a row of the log, what was measured and could be."""
    found = {
        name: float(value)
        for name, value in row.items()
        if value not in ("", None) and name not in _NOT_MEASURED
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _data_sets(config: Mapping[str, Any], option: str) -> list[DataSet]:
    """Shard sets of a run, by the last parts of their places: the rest is nobody's business."""
    places, _ = read_shares(config[option])
    known = config.get(f"{option}_fingerprint", "")
    fingerprints = [known] if isinstance(known, str) else known
    shares = (option == "shards" and config.get("shares")) or [None] * len(places)
    return [
        DataSet(_last_part(place), fingerprint, share)
        for place, fingerprint, share in zip(places, fingerprints, shares, strict=True)
    ]


def _last_part(place: str) -> str:
    return place.rstrip("/").rpartition("/")[2]


def _starting_point(config: Mapping[str, Any]) -> str:
    """The weights that a run began with."""
    init = str(config.get("init") or "")
    return init if init.startswith("hf://") else Path(init).name


def _recipe(kind: type[Options], config: Mapping[str, Any]) -> str:
    """The options of a run that are no defaults, as a file that `--config` takes."""
    name = "finetune" if kind is FinetuneRun else "pretrain"
    lines = [_toml(option, config[option.name]) for option in _told(kind, config)]
    head = [f"# Each step takes {config.get('global_batch')} clips."]
    if config.get("select"):
        head.append(f"# Of the training set, it takes the clips in {_last_part(config['select'])}.")
    return "\n".join((*head, f"[{name}]", *lines))


def _told(kind: type[Options], config: Mapping[str, Any]) -> Iterator[Option]:
    for option in options_of(kind):
        value = config.get(option.name)
        is_default = value in (None, option.default, "custom") or value == []
        if option.name not in _NOT_IN_RECIPES and not is_default:
            yield option


def _toml(option: Option, value: Any) -> str:
    # JSON's numbers, texts, lists and truth values are TOML's, too.
    return f"{option.flag.lstrip('-')} = {json.dumps(value, ensure_ascii=False)}"
