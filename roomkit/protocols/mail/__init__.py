"""Email without a vendor: reading any letter, writing one, threads, quotes, reports and trust. Pure functions."""
