"""From a configuration to work: units, what `auto` means, the sizes of pools."""
