"""A teacher's targets for a whole corpus, and the quality gate that they must pass."""
