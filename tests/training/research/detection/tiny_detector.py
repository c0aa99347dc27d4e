"""A detector network small enough to train and export in a test, in the files of the real one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from research.detection.network import DetectorNetwork

WORDS = "you are a fool the bus is late today i like it and damn go home sun shines nobody knows why"
SPECIAL = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [c for letter in "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"*@$#" for c in (letter, f"##{letter}")]
VOCABULARY = [*SPECIAL, *WORDS.split(), *(piece for piece in LETTERS if piece not in WORDS.split())]


def tiny_base(folder: Path) -> Path:
    """Writes a random two-layer encoder with its tokenizer."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=96,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")
    return folder


def tiny_network(folder: Path) -> DetectorNetwork:
    """The network on a tiny base, with heads that are not close to zero."""
    torch.manual_seed(4)
    network = DetectorNetwork.from_base(tiny_base(folder)).eval()
    torch.nn.init.normal_(network.case.weight, std=0.1)
    return network


def _tokenizer() -> dict[str, object]:
    number = {token: place for place, token in enumerate(VOCABULARY)}
    pieces = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    special = {
        token: {"id": token, "ids": [number[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
    }
    return {
        "version": "1.0",
        "truncation": {"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [
            {
                "id": number[token],
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": pieces,
            "pair": pieces,
            "special_tokens": special,
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": number,
        },
    }
