"""Operations of a training step, and the clock that takes its time."""

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, BertConfig

from benchmarks.arithmetic import EncoderShape, StepClock

LAYERS, WIDTH, INNER = 2, 8, 12


def test_operations_are_what_torch_counts(tmp_path: Path) -> None:
    """Three rows of five tokens through a real encoder, forward and backward, counted by torch."""
    config = BertConfig(
        vocab_size=20, num_hidden_layers=LAYERS, hidden_size=WIDTH, intermediate_size=INNER, num_attention_heads=2
    )
    model = AutoModel.from_config(config, attn_implementation="eager", add_pooling_layer=False)
    with FlopCounterMode(display=False) as counted:
        model(input_ids=torch.ones(3, 5, dtype=torch.long)).last_hidden_state.sum().backward()
    config.save_pretrained(tmp_path)
    assert EncoderShape.read(tmp_path).training_flops([5, 5, 5]) == counted.get_total_flops()


def test_rows_of_different_lengths_count_their_own_tokens() -> None:
    """By hand: 28 parameters x 4 tokens x 6, and attention 12 x 1 layer x 2 x (1 + 9)."""
    shape = EncoderShape(layers=1, width=2, inner=3)
    assert shape.multiplied == 28
    assert shape.training_flops([1, 3]) == 672 + 240


def test_steps_of_the_warm_up_are_not_counted() -> None:
    clock = StepClock(warmup=1, steps=2)
    assert [clock.is_over(done) for done in range(4)] == [False, False, False, True]
    batches = [[9, 9], [2, 4], [3], [7]]  # the last was made in advance
    found = clock.measured(batches, EncoderShape(1, 2, 3), torch.float32)
    assert (found["steps"], found["rows"], found["tokens"], found["positions"]) == (2, 3, 9, 11)
    assert found["seconds"] >= 0
    assert found["gemm_flops_per_s"] > 0
