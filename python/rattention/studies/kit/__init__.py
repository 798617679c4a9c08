"""What every study is made of: configuration, folders, resuming, seeds, intervals, tables and figures."""
