# %% [markdown]
# # Memories of constant size
#
# A Hopfield network holds masks as minima of its energy. Its size does not grow with them; what it can
# hold does not either. This looks at a run whose masks were stored and recalled
# (`experiment=reservoir`, or `harness/recall.py`); RUN_DIR names it.

# %%
import os

import numpy as np

from analysis import figures, load, stored

RUN_DIR = os.environ.get("RUN_DIR", "runs/mnist5k-permuted-32-mlp_8192-unit_mask-unit")
reservoir = load.load(RUN_DIR, "reservoir").to_pandas()
reservoir.groupby(["rule", "cue"])["num_tasks"].agg(["min", "max"])

# %% [markdown]
# ## What comes back
#
# The share of masks that come back to the bit, by rule and cue; dotted, what theory lets each rule
# hold of random patterns. `flipped` and `erased` begin with a damaged mask, `data` with images alone.

# %%
figures.recall_by_masks(reservoir)

# %% [markdown]
# Masks that do not come back whole can still be of use: accuracy with what came back.

# %%
columns = ["bit_accuracy", "exact_recall", "accuracy"]
recalled = reservoir.groupby(["rule", "cue", "num_tasks"])[columns].mean()
recalled

# %% [markdown]
# ## Bytes
#
# A weight between every two units takes as much as 32 masks a unit. The reservoir's line crosses that of
# the packed masks beyond what it can hold: it saves no bytes, it recalls.

# %%
layout = stored.layout(RUN_DIR)
density = float(load.load(RUN_DIR, "tasks").to_pandas()["density"].mean())
counts = np.unique(np.geomspace(1, 64 * layout.num_bits, 40).astype(int))
sizes = figures.storage_bytes(counts, layout, density, reservoir)
figures.bytes_by_masks(sizes)

# %%
packed = layout.row_bytes
crossing = {
    rule: int(np.ceil(num_bytes / packed))
    for rule, num_bytes in reservoir.groupby("rule")["reservoir_bytes"].max().items()
}
print("masks from which on the packed rows are larger:", crossing)
