"""Benchmarks of rattention against the best of what people use today: ``python -m benchmarks``.

Layout: `cases` says what is measured (one table, one file per group); `peers` what it is measured against
(one file per library); `race` compares answers, `clock` times in alternation; `outcome` and `report` hold
and print what came out.
"""
