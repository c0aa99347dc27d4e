"""A frozen base in shares: each process keeps one of every block and fetches the others for a moment.

Fully sharded data parallelism is Zhao et al. 2023 (arXiv 2304.11277), here torch's ``fully_shard``. Only the
frozen weights of transformer blocks are shared out. What is trained stays whole in every process, as do the
embeddings and the output layer, which many models tie and this package calls on their own.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn

from guardrail.errors import ConfigError

__all__ = ["is_sharding_asked_for", "shard_blocks"]

OTHER_WAYS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}
# How accelerate hands over the configuration file's fsdp_config; None stands for an entry to leave out.
FOLLOWED = {
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": None,
    "FSDP_IGNORED_MODULES": None,
}


def is_sharding_asked_for() -> bool:
    """Whether ``accelerate launch`` started this process with FSDP.

    Raises ConfigError for what is asked for and would not be done: another engine, another way to shard.
    """
    for name, way in OTHER_WAYS.items():
        if os.environ.get(name) == "true":
            raise ConfigError(f"accelerate is set to {way}, which is not supported; FSDP shards a base")
    if os.environ.get("ACCELERATE_USE_FSDP") != "true":
        return False
    if torch.__version__ < "2.7":  # compared as a version; the first whose FSDP leaves parameters alone
        raise ConfigError(f"sharding a base needs torch 2.7 or later, this is {torch.__version__}")
    for name, value in FOLLOWED.items():
        found = os.environ.get(name, value)
        if found != value:
            remedy = f"set it to {value}" if value else "leave it out"
            raise ConfigError(f"{name} = {found} in accelerate's configuration is not followed: {remedy}")
    return True


def shard_blocks(model: Any, *, processes: int, device: torch.device) -> None:
    """Leaves this process a share of the frozen weights in the model's blocks, on ``device`` as all the rest.

    Every process must call it, and afterwards make the same passes: a block is fetched from all of them when
    it is entered, in the backward pass too. Blocks go to the device one by one, so a model on the CPU may be
    larger than the device. Raises ConfigError if the model does not say what its blocks are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    base = model.get_base_model()
    names = set(base._no_split_modules or ())
    blocks = [module for module in base.modules() if type(module).__name__ in names]
    if not blocks:
        raise ConfigError(f"{type(base).__name__} does not name its blocks and cannot be sharded")
    inside = {parameter for block in blocks for parameter in block.parameters()}
    shared = {parameter for parameter in inside if not parameter.requires_grad}
    whole = {parameter for parameter in model.parameters() if parameter not in shared}
    mesh = init_device_mesh(device.type, (processes,))
    # The trunks hold no shares of their own: around their blocks they make one of many.
    for module in (*blocks, *_trunks(base)):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    model.to(device)


def _trunks(base: Any) -> list[nn.Module]:
    """The outermost modules that are called as they are, see ``modeling.families``."""
    if base.config.is_encoder_decoder:
        return [base.get_encoder(), base.get_decoder()]
    return [base.base_model]
