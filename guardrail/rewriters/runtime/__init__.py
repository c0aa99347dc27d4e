"""Runs a Llama model with LoRA adapters on onnxruntime."""
