"""Tests. A regular package, so that no `tests` folder of another distribution can stand in its place."""
