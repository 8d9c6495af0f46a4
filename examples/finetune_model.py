"""Fine-tune the default model on a data set and compare recall before and after.

    python examples/finetune_model.py city tuned.safetensors

The data set has images/train and images/val, each with database and queries; `draw_city.py` draws one. An
interrupted run continues where it stopped. The weights then serve as a model: `placeray index --model FILE`.
"""

import sys

import placeray


def main(dataset: str, weights: str) -> None:
    """Train, write the weights of the best epoch, and print recall on the validation split."""
    report = placeray.finetune(dataset, weights)
    for stage in ("global", "reranked"):
        before, after = (report["recall"][when][stage]["1"] for when in ("before", "after"))
        print(f"{stage}: R@1 {before:.1f} before, {after:.1f} after")
    print(f"weights: {report['out']}, report: {report['run']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
