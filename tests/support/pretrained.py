"""Checkpoints that still have what they were pretrained with beside the body, and texts to go on with."""

from pathlib import Path

from tiny import CONFIGS, write_checkpoint, write_project


def write_sentences(folder: Path, checkpoint: Path) -> None:
    """A project as of `write_project`, but the second sentence of each text but one says again what the first does."""
    write_project(folder, checkpoint)
    header, *lines, last = (folder / "made.csv").read_text().splitlines()
    said = [(*line.rsplit(",", 1), line.split()[1]) for line in lines]
    rows = [f"{text} . it was {word} and {word},{label}" for text, label, word in said]
    (folder / "made.csv").write_text("\n".join([header, *rows, last]) + "\n")


def write_t5(folder: Path, sentinels: int = 20, **config: object) -> Path:
    """A tiny T5 of encoder and decoder, and a tokenizer with so many tokens that stand for spans; its folder."""
    import torch
    from tokenizers import Tokenizer
    from transformers import T5Config, T5ForConditionalGeneration

    write_checkpoint(folder, "t5")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([f"<extra_id_{number}>" for number in range(sentinels)])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    known = CONFIGS["t5"] | {"vocab_size": tokenizer.get_vocab_size(), "decoder_start_token_id": 0} | config
    model = T5ForConditionalGeneration(T5Config(**known))
    if config.get("tie_word_embeddings") is False:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(tokenizer.get_vocab_size(), 32))
    model.save_pretrained(folder)
    return folder
