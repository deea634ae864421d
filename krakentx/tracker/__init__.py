"""Who has which blob."""
