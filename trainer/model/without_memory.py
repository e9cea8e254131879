"""A model whose weights take no memory and no time until a file gives them.

FunASR's constructor fills a billion weights with random numbers (13 s), which the file then
replaces. In this mode what is made by `torch.empty`, as modules make their weights, lies on the
meta device. All else is real: tables and buffers, and LoRA's adapters, which no file need hold.
These are drawn as they would have been, since the draws of the other weights are skipped.

    with WithoutMemory():
        model = FunASRNano(**arguments)
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.model.random_skip import skip_draws

_ATEN = torch.ops.aten
_AT_ONCE = 16
"""Values that PyTorch draws from a normal distribution together."""


class WithoutMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Make weights on the meta device, and everything else as it is made without this mode."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._skipped = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN.empty.memory_format:
            kwargs["device"] = "meta"
        elif func is _ATEN.new_zeros.default:  # LoRA's adapters
            kwargs["device"] = "cpu"
        elif func in (_ATEN.uniform_.default, _ATEN.normal_.default):
            if args[0].is_meta:
                self._skip(func, args[0])
                return args[0]
            skip_draws(self._skipped)
            self._skipped = 0
        return func(*args, **kwargs)

    def _skip(self, func: Any, tensor: torch.Tensor) -> None:
        """Count what filling a tensor would draw, one number of 32 bits for each value.

        A normal distribution's last 16 values are drawn again if they are no whole 16
        (`normal_fill` in ATen's DistributionTemplates.h); of fewer than 16 each takes its own way.
        """
        size = tensor.numel()
        if func is _ATEN.normal_.default and size < _AT_ONCE:
            skip_draws(self._skipped)
            self._skipped = 0
            torch.empty(size, dtype=tensor.dtype, device="cpu").normal_()
            return
        again = func is _ATEN.normal_.default and size % _AT_ONCE > 0
        self._skipped += size + again * _AT_ONCE
