"""Names of the data sets, in a module without torch. harness/data/catalogue.py loads them."""

DATASETS = ("mnist5k", "digits", "mnist", "fashion_mnist")
