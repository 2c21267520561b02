"""The optimiser: Muon (Jordan et al. 2024) for the weight matrices, AdamW for everything else.

In a trial from the same weights, on the same 800 objects, a hundred steps of Muon reached the loss that AdamW had not
reached at the end (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn


def weight_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear and convolutional layers; the last layers, with few outputs, are left to AdamW."""
    layers = (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return [layer.weight for layer in layers if min(layer.weight.flatten(1).shape) >= 16]


class MuonAdamW:
    """Both optimisers as one. Muon's steps are scaled to the size of AdamW's, so that they share a learning rate.

    Args:
        parameters: what is optimised, in a fixed order.
        matrices: those of them that Muon takes; others in the collection are ignored.
        lr: learning rate.
        weight_decay: decoupled, of both.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], matrices: Collection[nn.Parameter], lr: float, weight_decay: float
    ) -> None:
        chosen = {id(p) for p in matrices}
        self._parameters = list(parameters)
        rest = [p for p in parameters if id(p) not in chosen]
        # Muon wants matrices: a convolution's weight is one, seen through a view that shares its memory.
        self._views = {id(p): p.detach().flatten(1) for p in parameters if id(p) in chosen}
        self._optimizers: list[torch.optim.Optimizer] = []
        if rest:
            self._optimizers.append(torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95)))
        if self._views:
            self._optimizers.append(
                torch.optim.Muon(
                    list(self._views.values()), lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )

    @property
    def param_groups(self) -> list[dict[str, list[nn.Parameter]]]:
        """The parameters as a gradient scaler wants them."""
        return [{"params": self._parameters}]

    def step(self, lr: float) -> None:
        """One step along the parameters' gradients."""
        for parameter in self._parameters:
            if id(parameter) in self._views and parameter.grad is not None:
                self._views[id(parameter)].grad = parameter.grad.flatten(1)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for tensor in (*self._parameters, *self._views.values()):
            tensor.grad = None

    def state(self) -> dict[str, Tensor]:
        """What has to be kept to go on, by "INDEX.NAME"."""
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self._parameters)
            for name, value in self._slot(parameter).items()
            if name != "step"
        }

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Takes over what `state` returned after `steps` steps."""
        for index, parameter in enumerate(self._parameters):
            slot = self._slot(parameter)
            prefix = f"{index}."
            slot |= {k.removeprefix(prefix): v.to(parameter) for k, v in state.items() if k.startswith(prefix)}
            if id(parameter) not in self._views and steps:
                slot["step"] = torch.tensor(float(steps))

    def _slot(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        owner = self._optimizers[-1] if id(parameter) in self._views else self._optimizers[0]
        slot: dict[str, Tensor] = owner.state[self._views.get(id(parameter), parameter)]
        return slot
