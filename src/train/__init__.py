"""What makes the model: prepare, then fit."""
