"""Makes the dataset of breast masses: breast-cancer.csv, from scikit-learn's copy of the UCI dataset.

python -m datasets.make_breast_cancer datasets/breast-cancer
"""

import argparse
from pathlib import Path

from sklearn.datasets import load_breast_cancer


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    output = parser.parse_args().output
    dataset = load_breast_cancer(as_frame=True)
    table = dataset.data.assign(label=dataset.target_names[dataset.target])
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "breast-cancer.csv", index=False)


if __name__ == "__main__":
    main()
