"""Studies of attention mechanisms whose evidence others can repeat: Long Range Arena, dark rooms,
compression, and how a BERT's attention changes with its context. Only the command line imports them."""
