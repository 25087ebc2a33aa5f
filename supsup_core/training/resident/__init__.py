"""Training on a GPU: many blocks of tasks side by side, with all data in the GPU's memory."""
