"""Other people's libraries, one file each: inputs and answers in our layout, the work in theirs."""
