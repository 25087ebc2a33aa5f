"""Task states: their layout in packed rows, and superpositions of states."""
