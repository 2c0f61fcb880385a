"""What judges the model: score, then report."""
