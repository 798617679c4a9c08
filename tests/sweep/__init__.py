"""Every class of Transformers' AutoModels, tiny and with random weights, on "rattention" against "eager"."""
