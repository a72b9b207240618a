"""torch.optim.RAdam by its equations, in numpy, on several parameters at once."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

#: Settings of a group that parameters must share to be updated together.
SHARED = ("lr", "betas", "eps", "decoupled_weight_decay")


class FlatRAdam:
    """Parameters with the same settings as one vector, with the state that torch's optimizer has of them.

    Parameters
    ----------
    optimizer : torch.optim.RAdam
    parameters : sequence of torch.Tensor
        Float32, on the CPU; with the same settings but for ``weight_decay``.

    Attributes
    ----------
    values, gradients : list of ndarray of float32
        Views, in the shapes of the parameters. :meth:`step` reads the gradients, which may then be
        overwritten.

    Notes
    -----
    With m and v the running means of the gradient and of its square, ``m / (1 - beta1)`` and
    ``v / (1 - beta2)`` are kept: that spares two passes per step. :meth:`store` gives them back.
    """

    def __init__(self, optimizer: torch.optim.RAdam, parameters: Sequence[torch.Tensor]):
        self.parameters = list(parameters)
        groups = [_group_of(optimizer, parameter) for parameter in parameters]
        self.settings = groups[0]
        self.decays = [group["weight_decay"] for group in groups]
        self.states = [_state_of(optimizer, parameter) for parameter in parameters]
        self.n_steps = int(self.states[0]["step"])
        beta1, beta2 = self.settings["betas"]
        ends = np.cumsum([parameter.numel() for parameter in parameters])[:-1]

        def views(flat):
            pairs = zip(np.split(flat, ends), parameters, strict=True)
            return [part.reshape(parameter.shape) for part, parameter in pairs]

        def flat(tensors):
            return np.concatenate([tensor.detach().numpy().ravel() for tensor in tensors])

        self._values = flat(self.parameters)
        self._first = flat(state["exp_avg"] for state in self.states)
        self._first /= np.float32(1 - beta1)
        self._second = flat(state["exp_avg_sq"] for state in self.states)
        self._second /= np.float32(1 - beta2)
        self._gradient, self._work = np.empty_like(self._values), np.empty_like(self._values)
        self.values, self.gradients = views(self._values), views(self._gradient)
        self._firsts, self._seconds = views(self._first), views(self._second)

    def step(self) -> None:
        """Update the values by the gradients."""
        settings, (beta1, beta2) = self.settings, self.settings["betas"]
        gradient, work = self._gradient, self._work
        self.n_steps += 1
        step, lr = self.n_steps, float(settings["lr"])
        for values, slope, decay in zip(self.values, self.gradients, self.decays, strict=True):
            if decay and settings["decoupled_weight_decay"]:
                values *= np.float32(1 - lr * decay)
            elif decay:
                slope += np.float32(decay) * values
        self._first *= np.float32(beta1)
        self._first += gradient
        self._second *= np.float32(beta2)
        np.multiply(gradient, gradient, out=gradient)
        self._second += gradient

        size = lr * (1 - beta1) / (1 - beta1**step)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / (1 - beta2**step)
        if length <= 5:  # too few steps to know the variance
            np.multiply(self._first, np.float32(size), out=work)
        else:
            rectified = (length - 4) * (length - 2) * longest
            rectified /= (longest - 4) * (longest - 2) * length
            root = math.sqrt(1 - beta2)
            np.sqrt(self._second, out=work)
            work += np.float32(settings["eps"] / root)
            np.divide(self._first, work, out=work)
            work *= np.float32(size * math.sqrt(rectified * (1 - beta2**step)) / root)
        self._values -= work

    def store(self) -> None:
        """Write values and state to where torch keeps them."""
        beta1, beta2 = self.settings["betas"]
        rows = zip(
            *(self.parameters, self.states, self.values, self._firsts, self._seconds), strict=True
        )
        with torch.no_grad():
            for parameter, state, values, first, second in rows:
                parameter.copy_(torch.from_numpy(values))
                state["exp_avg"].copy_(torch.from_numpy(first * np.float32(1 - beta1)))
                state["exp_avg_sq"].copy_(torch.from_numpy(second * np.float32(1 - beta2)))
                state["step"].fill_(self.n_steps)


def updated_together(
    optimizer: torch.optim.RAdam, parameters: Sequence[torch.Tensor]
) -> list[list[torch.Tensor]]:
    """Parameters in groups that a :class:`FlatRAdam` can update.

    Parameters
    ----------
    optimizer : torch.optim.RAdam
    parameters : sequence of torch.Tensor

    Returns
    -------
    groups : list of list of torch.Tensor
    """
    groups: dict[Any, list[torch.Tensor]] = {}
    for parameter in parameters:
        group = _group_of(optimizer, parameter)
        n_steps = int(_state_of(optimizer, parameter)["step"])
        settings = tuple(float(group[name]) if name == "lr" else group[name] for name in SHARED)
        groups.setdefault((n_steps, *settings), []).append(parameter)
    return list(groups.values())


def _group_of(optimizer, parameter):
    (group,) = (
        group
        for group in optimizer.param_groups
        if any(parameter is one for one in group["params"])
    )
    return group


def _state_of(optimizer, parameter):
    state = optimizer.state[parameter]
    if not state:  # as torch begins
        state["step"] = torch.tensor(0.0)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state
