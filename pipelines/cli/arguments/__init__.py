"""The arguments of the verbs. Imports no heavy libraries, so that --help is fast."""
