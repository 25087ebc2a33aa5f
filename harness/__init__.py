"""The harness around supsup_core: configuration, data sets, actors, mask store and tables."""

from harness.places.kernel_cache import set_kernel_cache

set_kernel_cache()
