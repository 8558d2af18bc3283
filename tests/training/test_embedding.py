import pytest
import torch
from torch import nn

from graftwork.training.embedding import QuickEmbedding, quicken_embeddings

IDS = torch.tensor([[3, 1, 3], [0, 6, 3]])


def gradients(embedding: nn.Embedding, steps: int = 3, batches: int = 1) -> list[torch.Tensor]:
    """The weight's gradient after each of a few steps, each on other ids."""
    generator, found = torch.Generator().manual_seed(0), []
    for step in range(steps):
        for batch in range(batches):
            ids = (IDS + step + 2 * batch) % 7
            (embedding(ids) * torch.randn(*ids.shape, 4, generator=generator)).sum().backward()
        assert embedding.weight.grad is not None
        found.append(embedding.weight.grad.clone())
        embedding.weight.grad = None
    return found


@pytest.mark.parametrize("padding", [None, 0])
@pytest.mark.parametrize("batches", [1, 2])
def test_gradients_are_those_of_torch(padding: int | None, batches: int) -> None:
    """Bit for bit, step after step, summed over the batches of one; rows of earlier steps are zero again."""
    plain = nn.Embedding(7, 4, padding_idx=padding)
    quick = QuickEmbedding.of(plain)
    assert quick.weight is plain.weight
    assert torch.equal(quick(IDS), plain(IDS))
    expected, found = gradients(plain, batches=batches), gradients(quick, batches=batches)
    assert all(map(torch.equal, found, expected))


def test_what_else_was_added_is_gone_in_the_next_step() -> None:
    """A pull to the start, or other processes' gradients, lie in rows that this process never looked up."""
    quick = QuickEmbedding(7, 4)
    (clean,) = gradients(quick, steps=1)
    quick(IDS).sum().backward()
    assert quick.weight.grad is not None
    quick.weight.grad += 1
    quick.weight.grad = None
    assert torch.equal(gradients(quick, steps=1)[0], clean)


def test_a_frozen_one_holds_no_gradient() -> None:
    quick = QuickEmbedding(7, 4).requires_grad_(False)
    assert not quick(IDS).requires_grad


def test_it_takes_the_place_of_every_plain_embedding_on_a_cpu() -> None:
    """With its own parameter, under its own name; elsewhere torch's stay."""
    model = nn.ModuleDict({"words": nn.Embedding(7, 4, padding_idx=0), "inner": nn.Sequential(nn.Embedding(5, 4))})
    before = dict(model.named_parameters())
    quicken_embeddings(model, torch.device("cuda"))
    assert type(model["words"]) is nn.Embedding
    quicken_embeddings(model, torch.device("cpu"))
    assert sum(type(module) is QuickEmbedding for module in model.modules()) == 2
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
