"""Device and precision that a network runs in. Imports torch only inside its functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from storage.errors import PlacerayError

if TYPE_CHECKING:
    import torch

__all__ = [
    "AS_USUAL",
    "OPTIONS",
    "BadExecution",
    "Execution",
    "Precision",
    "best_device",
    "execution_of",
    "native_dtype",
]

Precision = Literal["auto", "fp32", "bf16"]


class BadExecution(PlacerayError, ValueError):
    """The precision is unknown."""

    reason = "bad_execution"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How an extractor runs its network; each field describes itself in its metadata.

    `bf16` computes in float32 on a CPU without bfloat16 instructions. What it changes is measured in
    benchmarks/README.md, Extraction; compilation is that of `models.runtime.compiled`.

    Raises:
        BadExecution: the precision is unknown.
    """

    precision: Precision = field(
        default="auto",
        metadata={
            "help": "numeric precision; bf16 is faster where the processor supports it, with nearly the same "
            "results; auto: bf16 on accelerators, fp32 on CPUs",
        },
    )
    compiled: bool = field(
        default=False, metadata={"help": "compile the model first, for accelerators; takes minutes"}
    )

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise BadExecution(
                f"unknown precision {self.precision!r}: choose one of {', '.join(get_args(Precision))}"
            )

    def dtype(self, device: torch.device) -> torch.dtype:
        """Return the dtype of the network's arithmetic on a device."""
        import torch

        if self.precision == "auto":
            return torch.float32 if device.type == "cpu" else torch.bfloat16
        return native_dtype(device) if self.precision == "bf16" else torch.float32


AS_USUAL = Execution()
# Name of the flag and setting -> name of the attribute.
OPTIONS = {"precision": "precision", "compile": "compiled"}


def execution_of(options: Mapping[str, Any]) -> Execution:
    """Build an `Execution` from options named as flags and settings; missing ones keep their defaults.

    Raises:
        BadExecution: a value is unknown.
    """
    return Execution(**{name: options[option] for option, name in OPTIONS.items() if option in options})


def native_dtype(device: torch.device | str) -> torch.dtype:
    """Return the fastest dtype of a device: bfloat16, or float32 where bfloat16 is not native.

    CPUs have native bfloat16 with AMX or AVX-512 BF16; elsewhere torch emulates it, several times slower than
    float32.
    """
    import torch

    if torch.device(device).type != "cpu":
        return torch.bfloat16
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def best_device() -> torch.device:
    """Return the accelerator if available, else the CPU."""
    import torch

    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def multiply_exactly(device: torch.device, dtype: torch.dtype) -> None:
    """Disable TF32 for float32 convolutions on CUDA, in the whole process.

    torch enables it for cuDNN by default. Other devices and dtypes are not affected.
    """
    import torch

    if device.type == "cuda" and dtype == torch.float32:
        torch.backends.cudnn.allow_tf32 = False
