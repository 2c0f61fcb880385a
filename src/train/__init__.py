"""What makes the model: prepare, then fit, with the files that it stands on."""
