"""Write docs/expected.md: the curves in the recipes' [expected] tables.

    python docs/make_expected.py

A test compares the page with the recipes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cavmae.recipes import Recipe, read_recipe, recipes_folder

PAGE = Path(__file__).with_name("expected.md")
_HEAD = """\
# Expected curves

What the published runs measured, to compare your own run with. `cavmae pretrain --config` and
`cavmae finetune --config` print these values beside their own at the end of each epoch:

```text
pretrain: epoch 1/25  loss … (published 0.927)  loss_mae_audio … (published 0.543 at epoch 25)
```

The page is written by `docs/make_expected.py` from the `[expected]` tables of the
[recipes](recipes.md), which say where each run starts from.

**The published pretraining logs show losses four times larger.** They sum the losses of 4 GPUs
(DataParallel), so the values here are theirs divided by 4: what one process computes, and what
`log.csv` holds. Two facts prove the factor: at step 100 of the base run the contrastive accuracy is
0.083, that is 1/12, chance among the 12 clips of a GPU, while the log's contrastive loss is 0.0965,
that is 4 × 0.01 × ln 12. Their contrastive column is also weighted by 0.01; `loss_contrast` here is
not. Training itself was not affected, because Adam does not depend on the loss's scale.

- `loss` and its parts are means over an epoch of training; the first value of the base run, at step
  100, is 1.275.
- `map` and `accuracy` are of the middle frame, without averaged weights; [recipes](recipes.md) has
  the figures after averaging.
- `contrast_accuracy` is of held-out clips, among the 12 of a GPU.
- Seconds per epoch are those of the published 4 GPUs.

| recipe | s per epoch | measure | value (epoch) |
|---|---|---|---|
"""


def recipes() -> Iterator[Recipe]:
    """The recipes of the published runs."""
    for path in sorted(recipes_folder().glob("*.toml"), key=lambda path: path.stem):
        yield read_recipe(str(path))


def rows(recipe: Recipe) -> Iterator[str]:
    """A recipe's rows of the table."""
    name, seconds = f"`{recipe.path.name}`", f"{recipe.expected.seconds_per_epoch or 0:,.0f}"
    for split, curves in recipe.expected.curves.items():
        for measure, curve in curves.items():
            values = ", ".join(f"{value:.4g} ({epoch})" for epoch, value in sorted(curve.items()))
            yield f"| {name} | {seconds} | {split} `{measure}` | {values} |"
            name = seconds = ""


def render() -> str:
    """The page."""
    lines = [row for recipe in recipes() for row in rows(recipe)]
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
