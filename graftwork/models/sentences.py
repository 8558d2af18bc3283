"""Next sentence prediction: the body learns to tell whether the second part of a text follows the first, beside the
words that are hidden in both.

A row is (tokens, 3) integers: the two of `graftwork.models.masked`, and the part that each token is of: FIRST, or what
follows it, FOLLOWS, or what was taken from another text, FOREIGN. Method: BERT (Devlin et al. 2019).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.models.beside import PAIR_HEAD, POOLER
from graftwork.models.catalog import Family, family_of
from graftwork.models.masked import LanguageHead, tell_hidden, token_table
from graftwork.models.serving.classifier import Classifier, hidden_size
from graftwork.models.serving.tensors import read_tensors

FIRST, FOLLOWS, FOREIGN = 0, 1, 2


class PairHead(nn.Module):
    """What tells hidden words, and from the state of the first token whether the second part is foreign."""

    def __init__(self, width: int, table: Tensor) -> None:
        super().__init__()
        self.words = LanguageHead(width, table)
        self.pooler = nn.Linear(width, width)
        self.answer = nn.Linear(width, 2)

    def forward(self, states: Tensor) -> Tensor:
        """(batch, tokens, width) states -> (batch, 2) scores: it follows, it is foreign."""
        return self.answer(torch.tanh(self.pooler(states[:, 0])))


class NextSentenceModel:
    """A classifier's body with the head `objective` that it has as long as a stage trains it so."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def forward(self, rows: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, tokens, 3) rows and (batch, tokens) mask -> (batch, 3).

        Of each row the loss, the mean of its hidden tokens and that of the pair; whether the pair is told rightly; and
        whether it is one: the last two are 0 where the row has one part, of which hidden tokens alone are told.
        """
        ids, hidden, parts = rows.unbind(-1)
        body, head = self.model.body, self._head
        states = body(input_ids=ids, attention_mask=attention_mask, token_type_ids=parts.clamp(max=1)).last_hidden_state
        words = tell_hidden(head.words, states, hidden, token_table(body))[:, 0]
        second = parts.amax(1)
        is_pair, is_foreign = (second != FIRST).float(), (second == FOREIGN).long()
        scores = head(states).float()
        losses = nn.functional.cross_entropy(scores, is_foreign, reduction="none")
        right = (scores.argmax(1) == is_foreign).float()
        return torch.stack([words + is_pair * losses, is_pair * right, is_pair], dim=1)

    @property
    def _head(self) -> Any:
        return self.model.get_submodule("objective")


def measure_pairs(found: Tensor, _labels: Tensor) -> tuple[float, float]:
    """The loss of all rows, and the share of pairs told rightly, of what `NextSentenceModel` gives; 0 without any."""
    loss, right, pairs = found.mean(0).tolist()
    return loss, right / pairs if pairs else 0.0


def attach_pair_head(model: Classifier, seed: int, folder: Path) -> None:
    """Give the classifier a head `objective`: what the folder's checkpoint has of it, the rest drawn from the seed."""
    torch.manual_seed(seed)
    body: Any = model.body
    table = token_table(body)
    head = PairHead(hidden_size(body), table)
    found = _read_pair_head(folder, family_of(body.config.model_type), head.state_dict())
    head.load_state_dict(found, strict=False)
    model.add_module("objective", head.to(table.device))


def _read_pair_head(folder: Path, family: Family, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The checkpoint's tensors of it in float32, by the names that they have here; none without what is read first.

    wanted: what they have to fit. Some models were taught to tell three things apart, or by another width.
    """
    names = {f"{old}.{kind}": f"{new}.{kind}" for old, new in PAIR_HEAD.items() for kind in ("weight", "bias")}
    stored = read_tensors(folder, lambda name: family.name_of(name) in names)
    found = {names[family.name_of(name)]: tensor for name, tensor in stored.items()}
    found = {name: tensor for name, tensor in found.items() if tensor.shape == wanted[name].shape}
    return found if f"{POOLER}.weight" in found else {}
