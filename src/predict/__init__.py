"""What uses a model, without TensorFlow: `python -m src.predict`, and the same in the file sluice.pyz."""
