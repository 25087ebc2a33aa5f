"""The names of the data sets, without torch: harness/data/catalogue.py loads them."""

DATASETS = ("mnist5k", "digits", "mnist", "fashion_mnist")
