"""What the gate's verdict rests on: the evidence, the baseline, the limits that hold, and how it is told."""
