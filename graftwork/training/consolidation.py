"""What each weight is worth to what a model knows already, and the pull back to it that is as strong as that.

Method: elastic weight consolidation (Kirkpatrick et al. 2017), by the true Fisher information: labels are expected over
the model's own answers, all classes of them, not taken from the rows or drawn. So the diagonal is a function of weights
and rows, and a process that resumes a stage computes the same again; it is no part of the state.
"""

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor, eye, nn, outer

from graftwork.models.serving.inference import autocast


def sum_fisher(
    model: nn.Module, forward: Callable[[Tensor, Tensor], Tensor], rows: Iterable[tuple[Tensor, Tensor]], precision: str
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of each parameter in training, by name, summed over the rows.

    rows: what `forward` makes (1, classes) logits of. Each is computed by itself, without dropout: a batch would give
    the square of a sum, not the sum of squares.
    """
    model.eval()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    diagonal = {name: parameter.detach().new_zeros(parameter.shape) for name, parameter in trained.items()}
    for inputs, mask in rows:
        with autocast(inputs.device, precision):
            logits = forward(inputs, mask).float()[0]
        directions = root_of_covariance(logits.detach())
        for number, direction in enumerate(directions):
            (logits @ direction).backward(retain_graph=number + 1 < len(directions))
            _take_squares(trained, diagonal)
    return diagonal


def root_of_covariance(logits: Tensor) -> Tensor:
    """(classes - 1, classes) vectors whose outer products have the sum diag(p) - p p', of (classes,) logits.

    That is the Fisher information of the logits themselves: the expected square of the gradient of log p by a logit.
    One vector less than there are classes, since p sums to 1: a reflection takes the direction of the root of p away.
    """
    root = logits.double().softmax(0).sqrt()
    normal = root.clone()
    normal[0] += 1  # p is never negative: nothing cancels
    reflection = eye(len(root), dtype=root.dtype, device=root.device) - outer(normal, normal) / normal[0]
    return (reflection[1:] * root).to(logits.dtype)


def _take_squares(trained: Mapping[str, nn.Parameter], diagonal: Mapping[str, Tensor]) -> None:
    """Add the squares of the gradients that there are, and take these away."""
    # Read from the parameters, not asked of autograd: quick embeddings put theirs there by themselves.
    for name, parameter in trained.items():
        if parameter.grad is not None:
            diagonal[name].addcmul_(parameter.grad, parameter.grad)
            parameter.grad = None
