"""Records and descriptors: the LanceDB table, and the checks of what enters it."""
