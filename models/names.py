"""Names of the available models. Imports nothing, since the command line's help reads it."""

__all__ = ["DEFAULT_MODEL", "MODEL_NAMES", "SELAVPRPP_MODELS", "SELAVPR_MODELS"]

DEFAULT_MODEL = "efficientnet-lite0"

_SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
# Name -> size letter, number of registers, timm's name of the backbone.
SELAVPR_MODELS = {
    f"selavpr-vit{size}14{'-reg4' * bool(registers)}": (
        size,
        registers,
        f"vit_{word}_patch14{'_reg4' * bool(registers)}_dinov2.lvd142m",
    )
    for registers in (0, 4)
    for size, word in _SIZES.items()
}

# Their weights are published by the authors and imported, or trained here; by name they are untrained.
SELAVPRPP_MODELS = {
    f"selavprpp-vit{size}14": (size, 0, f"vit_{_SIZES[size]}_patch14_dinov2.lvd142m") for size in ("b", "l")
}

MODEL_NAMES = (DEFAULT_MODEL, *SELAVPR_MODELS, *SELAVPRPP_MODELS)
