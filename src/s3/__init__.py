"""Buckets: files in them read and written, brought and sent, and what is published there."""
