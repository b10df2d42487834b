"""How much working memory a model will take, estimated.

The interpreter keeps its tensors in one arena: those that are alive at the same time next to each other, and
its own bookkeeping behind them. The first part is found here as the peak of the live tensors over the run of
the operators; the planner needs at least that. The second is a rule of thumb fitted to the reference engine
(TFLM, 64-bit): per operator, per tensor, and per channel of quantised weights. On nine image models between
33 KB and 695 KB of arena the estimate was within 1 % of it. A camera's pointers are half as long, but its
optimised kernels may ask for scratch memory on top.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_ALIGNMENT: Final = 16
_OPERATOR_BYTES: Final = 160
_TENSOR_BYTES: Final = 24
_CHANNEL_BYTES: Final = 8  # a multiplier and a shift
_FIXED_BYTES: Final = 800


@dataclass(frozen=True, slots=True)
class Planned:
    """A tensor as the planner sees it. `size` is 0 for weights, which stay in the model."""

    size: int
    variable: bool
    channels: int


def arena_estimate(
    tensors: Sequence[Planned],
    operators: Sequence[tuple[Sequence[int], Sequence[int]]],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> int:
    """Bytes of arena; operators are (inputs, outputs) as indexes of tensors, -1 for an absent one."""
    kept = sum(
        _OPERATOR_BYTES + _CHANNEL_BYTES * max((tensors[n].channels for n in read if n >= 0), default=0)
        for read, _ in operators
    )
    peak = activation_peak(tensors, operators, inputs, outputs)
    return peak + kept + _TENSOR_BYTES * len(tensors) + _FIXED_BYTES


def activation_peak(
    tensors: Sequence[Planned],
    operators: Sequence[tuple[Sequence[int], Sequence[int]]],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> int:
    """The most bytes of tensors that are alive at once."""
    end = len(operators)
    first = dict.fromkeys(inputs, 0)
    last = dict.fromkeys(inputs, 0)
    for step, (read, written) in enumerate(operators):
        for n in (*read, *written):
            if n >= 0:
                first.setdefault(n, step)
                last[n] = step
    for n in outputs:
        first.setdefault(n, 0)
        last[n] = end
    changes = [0] * (end + 2)
    for n, start in first.items():
        size = -(-tensors[n].size // _ALIGNMENT) * _ALIGNMENT
        begin, stop = (0, end) if tensors[n].variable else (start, last[n])
        changes[begin] += size
        changes[stop + 1] -= size
    peak = alive = 0
    for change in changes:
        alive += change
        peak = max(peak, alive)
    return peak
