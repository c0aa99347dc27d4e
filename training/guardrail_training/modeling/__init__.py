"""Language models as trainers use them: bases, adapters, examples, families."""

from guardrail_training.modeling.adapters import (
    add_lora,
    resume_adapter,
    save_adapter,
    trainable_parameters,
    write_adapter,
)
from guardrail_training.modeling.bases import (
    ParameterCount,
    autocast,
    count_parameters,
    fuse_activations,
    load_base,
    load_ending_tokenizer,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
    save_model,
)
from guardrail_training.modeling.examples import (
    EncodedExample,
    ExampleBatch,
    collate,
    encode_example,
    target_logits,
)

__all__ = [
    "EncodedExample",
    "ExampleBatch",
    "ParameterCount",
    "add_lora",
    "autocast",
    "collate",
    "count_parameters",
    "encode_example",
    "fuse_activations",
    "load_base",
    "load_ending_tokenizer",
    "load_tokenizer",
    "resolve_device",
    "resolve_dtype",
    "resume_adapter",
    "save_adapter",
    "save_model",
    "target_logits",
    "trainable_parameters",
    "write_adapter",
]
