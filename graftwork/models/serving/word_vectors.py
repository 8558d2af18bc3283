"""Word vectors as a body: a table with a vector for each word, which knows nothing of the words beside it."""

from typing import Any

from torch import Tensor, nn

from .own import BodyOutput


class Body(nn.Module):
    """Word2Vec, GloVe and their kind. The padding token's row is not trained; under the mask it does not count."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BodyOutput:  # noqa: ARG002
        """(batch, tokens) ids -> (batch, tokens, hidden) vectors."""
        return BodyOutput(self.embeddings(input_ids))
