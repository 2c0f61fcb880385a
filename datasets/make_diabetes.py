"""Makes the dataset of diabetes patients: diabetes.csv, from the copy that scikit-learn carries, unscaled.

python -m datasets.make_diabetes datasets/diabetes
"""

import argparse
from pathlib import Path

from sklearn.datasets import load_diabetes

NAMES = {
    "bp": "blood_pressure",
    "s1": "cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "cholesterol_by_hdl",
    "s5": "log_triglycerides",
    "s6": "glucose",
    "target": "progression",
}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    output = parser.parse_args().output
    table = load_diabetes(as_frame=True, scaled=False).frame.rename(columns=NAMES)
    table = table.astype({"age": int, "sex": int})
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "diabetes.csv", index=False)


if __name__ == "__main__":
    main()
