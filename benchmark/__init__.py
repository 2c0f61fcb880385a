"""What the README claims about speed and memory: ratios measured side by side in one run."""
