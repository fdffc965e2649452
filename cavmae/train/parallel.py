"""How a model is spread over the ranks and how its blocks are run.

Replicas (DDP) or shards (FSDP2), recomputed activations, compiled blocks: the model knows of none
of it, and neither do checkpoints, which hold whole tensors under the model's own names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from cavmae.distributed import World
from cavmae.model.blocks import Block
from cavmae.train.options import ComputeOptions, Parallel

# Of a block: sequence lengths, streams, batch sizes, training and evaluation, multiplied.
_PROGRAMS = 64


def spread_model(model: nn.Module, world: World, options: ComputeOptions) -> nn.Module:
    """Prepare a model for training, in place.

    Build optimisers afterwards: FSDP replaces the parameters.

    Args:
        model: on the world's device, the same on every rank; the loss depends on every parameter
            that is trained.
        world: this process among its peers.
        options: `activation_checkpointing`, `compile` and `parallel` are followed.

    Returns:
        What a training step has to call.
    """
    # The forward function is replaced and not the module, so that no parameter gets another name
    # and FSDP's hooks stay outside of what is recomputed or compiled.
    for block in _blocks(model):
        if options.compile:
            block.forward = _compiled(block.forward)  # type: ignore[method-assign]
        if options.activation_checkpointing:
            block.forward = functools.partial(  # type: ignore[method-assign]
                checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False
            )
    return model if world.size == 1 else distribute(model, world, options.parallel)


def distribute(model: nn.Module, world: World, parallel: Parallel) -> nn.Module:
    """Give each rank a replica or a shard of a model, in place; returns what a step has to call."""
    if parallel == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in _blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def _blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A block's forward function as programs that all blocks share, one for each shape.

    A program for any shape would be slower, and PyTorch would give up compiling after eight.
    """
    torch._dynamo.config.recompile_limit = _PROGRAMS
    return torch.compile(forward, dynamic=False, fullgraph=True)


def without_gradient_exchange(model: nn.Module) -> AbstractContextManager[Any]:
    """For all batches of a step but the last: replicas need not agree on gradients yet.

    Shards exchange theirs for every batch, since whole gradients would take the memory that
    sharding saves.
    """
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def collected(model: nn.Module) -> Iterator[None]:
    """Every rank holds the whole weights for the length of a block.

    So it may evaluate batches that the others do not have, without one waiting for another. All
    ranks enter and leave together.
    """
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shards:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()


def to_cpu(tensor: Tensor) -> Tensor:
    """The tensor on the CPU; itself, where it is there."""
    return tensor.detach().cpu()


def whole_weights(
    model: nn.Module, keep: bool, copy: Callable[[Tensor], Tensor] = to_cpu
) -> dict[str, Tensor]:
    """A model's whole state. All ranks must call this together.

    Args:
        model: spread or not.
        keep: whether this rank wants the result; else it is empty.
        copy: brings a tensor to the CPU.

    Returns:
        Tensors on the CPU by the model's own names.
    """
    return whole(model.state_dict(), keep, copy) or {}


def whole(value: Any, keep: bool, copy: Callable[[Tensor], Tensor] = to_cpu) -> Any:
    """The same nested dictionaries and lists with whole CPU tensors. All ranks call it together.

    Args:
        value: as `Optimizer.state_dict()` gives it.
        keep: whether this rank wants the result; else it is None.
        copy: brings a tensor to the CPU.
    """
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if isinstance(value, Tensor):
        return copy(value) if keep else None
    if isinstance(value, Mapping):
        entries = {name: whole(part, keep, copy) for name, part in value.items()}
        return entries if keep else None
    if isinstance(value, list):
        parts = [whole(part, keep, copy) for part in value]
        return parts if keep else None
    return value


def as_sharded(full: Tensor, like: Tensor) -> Tensor:
    """This rank's shard of a tensor that every rank has, laid out as another one is."""
    if not isinstance(like, DTensor) or full.shape != like.shape:
        return full
    return distribute_tensor(
        full.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )


def load_whole_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """The inverse of `whole_weights`.

    Raises:
        RuntimeError: tensors are missing, unexpected or misshapen.
    """
    own = model.state_dict()
    model.load_state_dict(
        {name: as_sharded(w, own[name]) if name in own else w for name, w in weights.items()}
    )


def load_whole_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimiser the state that `whole` made of another one's, spread in any way."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in state["param_groups"] for n in group["params"]]
    like = dict(zip(numbers, parameters, strict=True))
    spread = {
        number: {
            name: as_sharded(value, like[number]) if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        for number, entries in state["state"].items()
    }
    # How the steps are computed is this machine's business.
    groups = [
        {**theirs, "fused": own["fused"]}
        for theirs, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": spread, "param_groups": groups})
