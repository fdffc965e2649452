"""What `from_pretrained`, `save_pretrained` and `push_to_hub` of the models do."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, TypeVar

from avprep import storage
from avprep.errors import UserError
from cavmae.checkpoints import load_checkpoint, save_model, weights_file
from cavmae.checkpoints.card import About, model_card
from cavmae.checkpoints.hub import WEIGHTS, download, hub_errors, is_hub_url
from cavmae.model import CAVMAE, CAVMAEClassifier

Model = TypeVar("Model")
_CONFIG = "config.json"
_TYPE = "cavmae"
_NAME = re.compile(r"[^/]+/[^/]+(@.+)?")  # on the hub


def load_pretrained(
    kind: type[Model], source: str | Path, revision: str | None = None, **options: Any
) -> Model:
    """A model in evaluation mode, with what is stored beside its weights.

    Args:
        kind: of the model.
        source: a path, or a name on the hub; a path that exists comes first.
        revision: on the hub.
        options: of the download, see `cavmae.checkpoints.hub.download`.

    Raises:
        UserError: nothing there, not safetensors, or a model of another kind.
        WorkFailed: the hub does not answer.
    """
    if is_hub_url(source):
        file = download(str(source), revision, **options)
    elif Path(source).exists() or not _NAME.fullmatch(str(source)):
        if revision is not None:
            raise UserError(f"{source}: has no revisions; a model on the hub is hf://org/name.")
        file = weights_file(source)
    else:
        try:
            file = download(f"hf://{source}", revision, **options)
        except UserError as error:
            raise UserError(f"{source}: no such folder or file. {error}") from error
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: is not safetensors; `cavmae convert` makes one of it.")
    model = load_checkpoint(file).eval()
    if not isinstance(model, kind):
        name = type(model).__name__
        raise UserError(f"{file}: holds a {name}; load it with {name}.from_pretrained.")
    return model


def save_pretrained(model: CAVMAE | CAVMAEClassifier, folder: str | Path) -> None:
    """Write `model.safetensors`, and `config.json` for the hub and for people.

    The weights carry all that loading needs, so nothing reads config.json.

    Raises:
        UserError: the folder holds a config.json of something else, such as of a run.
    """
    folder = Path(folder)
    config = folder / _CONFIG
    if config.exists() and f'"model_type": "{_TYPE}"'.encode() not in config.read_bytes():
        raise UserError(f"{config}: is not of a saved model. Choose another folder.")
    storage.make_folder(folder)
    save_model(folder / WEIGHTS, model)
    described = {
        "architectures": [type(model).__name__],
        "model_type": _TYPE,
        **dataclasses.asdict(model.config),
    }
    storage.write_json(config, described)


def push_pretrained(
    model: CAVMAE | CAVMAEClassifier, repo: str, about: About = About(), **options: Any
) -> str:
    """Put a model into a repository on the hub, with a model card.

    Args:
        model: that is pushed.
        repo: `org/name`; made if it is not there.
        about: what the card says besides what the model knows.
        options: of `huggingface_hub.ModelHubMixin.push_to_hub`.

    Returns:
        The URL of the commit.

    Raises:
        UserError: huggingface_hub is not installed, or the hub refuses.
        WorkFailed: the hub does not answer.
    """
    with hub_errors(f"hf://{repo}", repo):
        from huggingface_hub import HfApi, ModelCard, ModelHubMixin

        # The mixin makes the repository and the commit. It is no base of the models, since then
        # every use of a model would import it and its HTTP client, or fail where it is not.
        class HubModel(ModelHubMixin):
            def _save_pretrained(self, save_directory: Path) -> None:
                save_pretrained(model, save_directory)

            def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
                return model_card(model, repo, about)

        if branch := options.get("branch"):
            api = HfApi(token=options.get("token"))
            api.create_repo(repo, private=options.get("private"), exist_ok=True)
            api.create_branch(repo, branch=branch, exist_ok=True)
        return str(HubModel().push_to_hub(repo, **options))
