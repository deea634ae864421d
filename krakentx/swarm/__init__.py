"""DECISIONS: which peer, which piece, when. Pure: time is `now`, chance is a `random.Random`, effects are values."""
