"""Attention mechanisms compared on tasks of Long Range Arena."""
