"""Predictions over HTTP, for `python -m src.predict serve`: its packages are not needed to predict."""
