"""Sluice: a model development repository behind a gate.

Stages (`train`, `evaluate`) are run as `python -m src.X.Y` and meet only in files. Plug-in folders
(`tasks`, `architectures`, `objectives`) hold one file for each name that params.yaml can say. Everything
else here is a foundation that both stand on.
"""
