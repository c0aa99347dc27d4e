"""Runs a Llama or Qwen2 model with LoRA adapters on onnxruntime."""
