"""Low-rank adapters beside linear layers of a frozen body: attached, kept in peft's own format, and merged.

peft does the work. It and torch are imported where adapters are attached: a plan is made without them.
Methods: LoRA (Hu et al. 2021) and DoRA (Liu et al. 2024).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from graftwork.models.catalog import DepthGroup

if TYPE_CHECKING:
    from torch import nn

# As peft names them.
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class Adapters:
    """What stands beside which layers: a product of two matrices of `rank`, times alpha / rank.

    dora: the length of each row of the weights is trained apart from its direction. layers: those adapted, by their
    names in the classifier. depth: of the lowest block with an adapter. parameters: of all adapters together.
    """

    SCHEMA: ClassVar[int] = 1
    rank: int
    alpha: float
    dropout: float
    dora: bool
    layers: tuple[str, ...]
    depth: int
    parameters: int

    @property
    def group(self) -> DepthGroup:
        """All of them as one depth group; their names begin as those of the blocks that they lie in."""
        return DepthGroup("lora", self.depth, self.parameters, tuple(f"{layer}.lora_" for layer in self.layers))


def adapter_parameters(rank: int, dora: bool, outputs: int, inputs: int) -> int:
    """The parameters of an adapter beside a linear layer."""
    return rank * (outputs + inputs) + dora * outputs


class AttachedAdapters:
    """Adapters beside the layers of a body, which they freeze; drawn from `seed`, they change no output at first.

    base: store key of what holds the weights of the body that they belong to. is_transposed: as of its family.
    """

    def __init__(
        self, body: "nn.Module", adapters: Adapters, seed: int, base: str, is_transposed: bool = False
    ) -> None:
        import torch
        from peft import LoraConfig, LoraModel

        self._layers = [layer.removeprefix("body.") for layer in adapters.layers]
        self._config = LoraConfig(
            r=adapters.rank,
            lora_alpha=adapters.alpha,
            lora_dropout=adapters.dropout,
            use_dora=adapters.dora,
            fan_in_fan_out=is_transposed,
            target_modules=self._layers,
            base_model_name_or_path=f"graftwork://{base}",  # by which no hub finds anything
        )
        torch.manual_seed(seed)
        self._tuned = LoraModel(body, self._config, "default")

    def keep(self, folder: Path) -> None:
        """Write what was learnt into a new folder, for `PeftModel.from_pretrained`. Only before they are merged."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        folder.mkdir()
        tensors = get_peft_model_state_dict(self._tuned, save_embedding_layers=False)
        weights = {f"base_model.{name}": tensor.cpu().contiguous() for name, tensor in tensors.items()}
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        # Not by peft's own save: it writes sets in any order, and endings of names for the layers if they are many.
        facts = self._config.to_dict() | {"target_modules": self._layers, "inference_mode": True}
        text = json.dumps(facts, indent=1, sort_keys=True, default=sorted)
        (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")

    def merge(self) -> None:
        """Add what was learnt to the weights of the body, which is an ordinary one again."""
        self._tuned.merge_and_unload(safe_merge=True)
