"""Models that are loaded, saved and pushed as users of the Hugging Face hub know it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

Model = TypeVar("Model", bound="Pretrained")


class Pretrained:
    """Base of both models.

    Attributes:
        metadata: strings stored with the weights: fbank mean and std; of a classifier its mode,
            criterion and labels. Empty for a model that was not loaded.
    """

    metadata: dict[str, str]

    @classmethod
    def from_pretrained(
        cls: type[Model], source: str | Path, *, revision: str | None = None, **options: Any
    ) -> Model:
        """Load a model, in evaluation mode. safetensors alone are read, and no code is run.

        Args:
            source: a folder that `save_pretrained` wrote, a run or a file; else `org/name` or
                `hf://org/name[@revision]` on the hub. A path that exists comes first.
            revision: branch, tag or commit on the hub.
            options: others of `huggingface_hub.hf_hub_download`, such as `token`, `cache_dir` and
                `local_files_only`.

        Raises:
            UserError: nothing there, no access, or not a model of this class.
            WorkFailed: the hub does not answer, and the model is not in the cache.
        """
        from cavmae.checkpoints.pretrained import load_pretrained

        return load_pretrained(cls, source, revision, **options)

    def save_pretrained(self: Any, folder: str | Path) -> None:
        """Write the model into a folder, for `from_pretrained` and every `--checkpoint`.

        Raises:
            UserError: the folder holds something else.
        """
        from cavmae.checkpoints.pretrained import save_pretrained

        save_pretrained(self, folder)

    def push_to_hub(self: Any, repo_id: str, **options: Any) -> str:
        """Push the model to the hub, with a model card; `cavmae.push` says more of a run in it.

        Args:
            repo_id: `org/name`; made if it is not there.
            options: of `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private`, `branch`,
                `commit_message` and `token`.

        Returns:
            The URL of the commit.

        Raises:
            UserError: huggingface_hub is not installed, or the hub refuses.
            WorkFailed: the hub does not answer.
        """
        from cavmae.checkpoints.pretrained import push_pretrained

        return push_pretrained(self, repo_id, **options)
