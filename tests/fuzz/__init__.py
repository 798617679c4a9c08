"""Metamorphic tests: what must not change a result, tried on cases that are drawn without end.

`python -m tests.fuzz --help` says how to run them; `tests/test_metamorphic.py` runs a fixed choice.
"""
