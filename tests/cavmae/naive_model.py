"""CAV-MAE written down a second time, as plainly as can be: the witness for tests and benchmarks.

Takes the weights of a model of ours by name. Every patch is embedded before some are dropped,
attention is spelled out, and each sample's tokens are put back by sorting.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cavmae.model import ModelConfig, PretrainOptions

Weights = dict[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def attention(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    batch, length, dim = x.shape
    qkv = linear(w, f"{name}.qkv", x).reshape(batch, length, 3, heads, dim // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * (dim // heads) ** -0.5).softmax(dim=-1)
    return linear(w, f"{name}.proj", (weights @ v).transpose(1, 2).reshape(batch, length, dim))


def block(w: Weights, name: str, x: Tensor, heads: int, stream: str = "") -> Tensor:
    x = x + attention(w, f"{name}.attn", norm(w, f"{name}.norm1{stream}", x), heads)
    hidden = F.gelu(linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm2{stream}", x)))
    return x + linear(w, f"{name}.mlp.fc2", hidden)


def embed(w: Weights, stream: str, pictures: Tensor, patch: int) -> Tensor:
    conv = F.conv2d(
        pictures,
        w[f"patch_embed_{stream}.proj.weight"],
        w[f"patch_embed_{stream}.proj.bias"],
        stride=patch,
    )
    tokens = conv.flatten(2).transpose(1, 2)
    return tokens + w[f"pos_embed_{stream}"] + w[f"modality_{stream}"]


def pictures_of(audio: Tensor, image: Tensor) -> dict[str, Tensor]:
    return {"a": audio.transpose(1, 2).unsqueeze(1), "v": image}


def through_own(w: Weights, config: ModelConfig, stream: str, x: Tensor) -> Tensor:
    for number in range(config.modality_depth):
        x = block(w, f"blocks_{stream}.{number}", x, config.num_heads)
    return x


def through_shared(w: Weights, config: ModelConfig, x: Tensor, suffix: str) -> Tensor:
    for number in range(config.depth - config.modality_depth):
        x = block(w, f"blocks_u.{number}", x, config.num_heads, suffix)
    return norm(w, f"norm{suffix}", x)


def patches_of(pictures: Tensor, patch: int) -> Tensor:
    batch, channels, height, width = pictures.shape
    rows, columns = height // patch, width // patch
    x = pictures.reshape(batch, channels, rows, patch, columns, patch)
    return torch.einsum("nchpwq->nhwpqc", x).reshape(batch, rows * columns, -1)


def forward(
    w: Weights,
    config: ModelConfig,
    audio: Tensor,
    image: Tensor,
    noise: dict[str, Tensor],
    options: PretrainOptions,
) -> dict[str, Tensor]:
    """All losses of a pretraining pass."""
    pictures = pictures_of(audio, image)

    tokens, mask, restore = {}, {}, {}
    for stream, picture in pictures.items():
        x = embed(w, stream, picture, config.patch_size)
        order = noise[stream].argsort(dim=1, stable=True)
        restore[stream] = order.argsort(dim=1)
        kept = int(x.shape[1] * (1 - options.mask_ratio))
        x = torch.gather(x, 1, order[:, :kept, None].expand(-1, -1, x.shape[-1]))
        hidden = torch.ones_like(noise[stream])
        hidden[:, :kept] = 0
        mask[stream] = torch.gather(hidden, 1, restore[stream])
        tokens[stream] = through_own(w, config, stream, x)

    joint = through_shared(w, config, torch.cat([tokens["a"], tokens["v"]], dim=1), "")
    alone = {s: through_shared(w, config, tokens[s], f"_{s}") for s in "av"}
    pooled = {s: F.normalize(alone[s].mean(1), dim=-1) for s in "av"}

    x = linear(w, "decoder_embed", joint)
    parts = dict(zip("av", x.split([tokens["a"].shape[1], tokens["v"].shape[1]], 1), strict=True))
    decoded = []
    for stream, part in parts.items():
        missing = restore[stream].shape[1] - part.shape[1]
        filler = w["mask_token"].repeat(part.shape[0], missing, 1)
        full = torch.cat([part, filler], dim=1)
        full = torch.gather(full, 1, restore[stream][..., None].expand(-1, -1, full.shape[-1]))
        decoded.append(full + w[f"decoder_pos_embed_{stream}"] + w[f"decoder_modality_{stream}"])
    x = torch.cat(decoded, dim=1)
    for number in range(config.decoder_depth):
        x = block(w, f"decoder_blocks.{number}", x, config.decoder_heads)
    x = norm(w, "decoder_norm", x)
    lengths = [restore[stream].shape[1] for stream in "av"]
    losses = {}
    for stream, part in zip("av", x.split(lengths, dim=1), strict=True):
        prediction = linear(w, f"decoder_pred_{stream}", part)
        target = patches_of(pictures[stream], config.patch_size)
        if options.norm_pix_loss:
            mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6) ** 0.5
        error = ((prediction - target) ** 2).mean(-1)
        losses[f"mae_{stream}"] = (error * mask[stream]).sum() / mask[stream].sum()
    similarity = pooled["a"] @ pooled["v"].T / 0.05
    losses["contrast"] = -similarity.log_softmax(dim=0).diag().mean()
    losses["accuracy"] = (similarity.diag() == similarity.amax(dim=0)).float().mean()
    if options.bidirectional:
        other = -similarity.log_softmax(dim=1).diag().mean()
        losses["contrast"] = (losses["contrast"] + other) / 2
        picked = (similarity.diag() == similarity.amax(dim=1)).float().mean()
        losses["accuracy"] = (losses["accuracy"] + picked) / 2
    losses["loss"] = (
        options.mae_weight * (losses["mae_a"] + losses["mae_v"])
        + options.contrast_weight * losses["contrast"]
    )
    return losses


def features(w: Weights, config: ModelConfig, audio: Tensor, image: Tensor, stream: str) -> Tensor:
    """Unmasked tokens of one modality, by its own norms."""
    x = embed(w, stream, pictures_of(audio, image)[stream], config.patch_size)
    return through_shared(w, config, through_own(w, config, stream, x), f"_{stream}")


def classify(w: Weights, config: ModelConfig, audio: Tensor, image: Tensor, mode: str) -> Tensor:
    """Logits of the classifier."""
    tokens = {}
    for stream, picture in pictures_of(audio, image).items():
        x = embed(w, stream, picture, config.patch_size)
        tokens[stream] = through_own(w, config, stream, x)
    if mode == "multimodal":
        joint = torch.cat([tokens["a"], tokens["v"]], dim=1)
        pooled = through_shared(w, config, joint, "").mean(1)
    else:
        stream = "a" if "audio" in mode else "v"
        pooled = through_shared(w, config, tokens[stream], f"_{stream}").mean(1)
        if "missing" in mode:
            pooled = (pooled + through_shared(w, config, tokens[stream], "").mean(1)) / 2
    return linear(w, "mlp_head.1", norm(w, "mlp_head.0", pooled))
