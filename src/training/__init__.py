"""What a training does beside learning: checkpoints, augmentation, watching, diagnosis."""
