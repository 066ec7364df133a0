"""Sentences that hold for every input hypothesis can find."""
