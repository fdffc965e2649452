"""The model card: what a reader of the hub must know to use a model, and how it came about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cavmae.checkpoints.hub import is_hub_url
from cavmae.checkpoints.usage import stored_labels
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.options import AUDIO_MODES, MODE_WORDS

if TYPE_CHECKING:  # imported for real when somebody pushes
    from huggingface_hub import EvalResult, ModelCard

_CODE = "avprep-cavmae"
_PAPER = "https://arxiv.org/abs/2210.07839"


@dataclass(frozen=True)
class DataSet:
    """A shard set that a model was trained or measured on.

    Attributes:
        name: for people.
        fingerprint: tells that it is the same.
        share: of the draws, where a model was trained on several.
    """

    name: str
    fingerprint: str
    share: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a model was found to do on a data set.

    Attributes:
        data: it was given.
        frames: of each clip.
        values: by name of the metric.
        mode: of a classifier.
    """

    data: DataSet
    frames: str
    values: Mapping[str, float]
    mode: str = ""


@dataclass(frozen=True)
class About:
    """What the model itself does not know.

    Attributes:
        license: an identifier that the hub knows.
        starting_point: the weights that training began with: a file's name or `hf://org/name`.
        trained_on: data sets.
        evaluations: of these weights.
        recipe: the options of the run, in TOML.
    """

    license: str = "unknown"
    starting_point: str = ""
    trained_on: Sequence[DataSet] = ()
    evaluations: Sequence[Evaluation] = ()
    recipe: str = ""


def model_card(model: CAVMAE | CAVMAEClassifier, repo: str, about: About) -> ModelCard:
    """The card of a model in the repository `org/name`."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        license=about.license,
        library_name="cavmae",
        pipeline_tag=_task(model),
        tags=["audio-visual", model.config.objective],
        base_model=_base(about),
        model_name=repo.partition("/")[2] or repo,
        eval_results=[one for each in about.evaluations for one in _results(model, each)] or None,
    )
    body = "\n".join(_body(model, repo, about))
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")


def _base(about: About) -> str | None:
    """The model on the hub that this one was made of, by the name it has there."""
    start = about.starting_point
    return start.removeprefix("hf://").partition("@")[0] if is_hub_url(start) else None


def _task(model: CAVMAE | CAVMAEClassifier) -> str:
    """The hub's name for what the model is for."""
    if isinstance(model, CAVMAE):
        return "feature-extraction"
    hears_only = model.metadata.get("mode") in AUDIO_MODES
    return "audio-classification" if hears_only else "video-classification"


def _results(model: CAVMAE | CAVMAEClassifier, found: Evaluation) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    arguments = {"frames": found.frames, **({"mode": found.mode} if found.mode else {})}
    for name, value in found.values.items():
        yield EvalResult(
            task_type=_task(model),
            dataset_type=found.data.name,
            dataset_name=found.data.name,
            dataset_revision=found.data.fingerprint or None,
            metric_type=name,
            metric_value=value,
            metric_args=arguments,
        )


def _body(model: CAVMAE | CAVMAEClassifier, repo: str, about: About) -> Iterator[str]:
    config, facts, kind = model.config, model.metadata, type(model).__name__
    yield f"# {repo.rpartition('/')[2]}\n"
    yield f"{_sentence(model)} Licence: {about.license}.\n"
    yield "```python"
    yield f"from cavmae import {kind}\n"
    yield f'model = {kind}.from_pretrained("{repo}")'
    yield "```\n"
    if isinstance(model, CAVMAEClassifier):
        yield f"`cavmae predict --checkpoint hf://{repo} VIDEO` names what is in a video.\n"
    yield "| property | value |\n|---|---|"
    yield f"| parameters | {sum(value.numel() for value in model.parameters()) / 1e6:.1f} M |"
    yield f"| pretrained as | {config.objective} |"
    yield f"| fbank | {config.audio_frames} rows of {config.mel_bins} mel bins, 10 ms each |"
    stats = facts.get("fbank_mean"), facts.get("fbank_std")
    yield f"| fbank mean, standard deviation | {', '.join(one or 'not stored' for one in stats)} |"
    yield f"| image | {config.image_size}×{config.image_size} pixels |"
    for name in ("mode", "criterion"):
        if name in facts:
            yield f"| {name} | {facts[name]} |"
    for one in about.trained_on:
        share = "" if one.share is None else f", {one.share:.1%} of the draws"
        yield f"| trained on | {_cell(one.name)}{share}, fingerprint `{one.fingerprint}` |"
    if about.starting_point:
        yield f"| started from | {_cell(about.starting_point)} |"
    if about.evaluations:
        yield "\n## Evaluation\n"
        yield "| data | fingerprint | mode | frames | metric | value |\n|---|---|---|---|---|---|"
    for each in about.evaluations:
        where = f"| {_cell(each.data.name)} | {each.data.fingerprint or '–'} | {each.mode or '–'} "
        for name, value in each.values.items():
            yield f"{where}| {each.frames} | {name} | {value:.4g} |"
    if about.recipe:
        yield f"\n## Recipe\n\n{_indented(about.recipe)}"
    if isinstance(model, CAVMAEClassifier) and (labels := stored_labels(facts)) is not None:
        yield "\n## Classes\n"
        rows = enumerate(zip(labels.mids, labels.names, strict=True))
        yield _indented("\n".join(f"{n} {_line(mid)} {_line(name)}" for n, (mid, name) in rows))


def _sentence(model: CAVMAE | CAVMAEClassifier) -> str:
    paper = f"[CAV-MAE]({_PAPER})"
    if isinstance(model, CAVMAE):
        return f"A {paper} model, pretrained with {_CODE}."
    mode = model.metadata.get("mode")
    given = f", given {MODE_WORDS[mode]}" if mode in MODE_WORDS else ""
    return f"A classifier of {model.num_classes} classes on {paper}{given}, made with {_CODE}."


def _indented(text: str) -> str:
    """As code that nothing in the text can end."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
