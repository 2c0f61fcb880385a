"""What is predicted.

The promise of every file here, none of which imports Keras:

    LOSS, METRICS           Keras names, for `compile`
    MEASURES                name → how the gate measures a metric on the test split: one of `KINDS` in
                            src/judgement/measures.py, and the functions that it takes
    classes(labels)         the sorted class names, or None where labels are numbers
    encode(labels, classes) the labels as the array that the loss takes
    output(labels, classes) what the network ends with (src.network.Output), of the encoded training labels
    predict(outputs, classes)        the network's outputs as columns: `prediction`, and what it rests on
    score(labels, outputs, classes)  the metrics, as JSON; the first one is the headline
    pictures(predictions, classes)   name → (caption, matplotlib figure), for the report
    showcase(predictions, count)     correct_predictions and incorrect_predictions: which ones to show, and
                                     under which title
"""

import pandas as pd


def infer(labels: pd.Series) -> str:
    """Returns the objective that a label column suggests: fractions are numbers, all else is classes."""
    return "regression" if pd.api.types.is_float_dtype(labels) else "classification"
