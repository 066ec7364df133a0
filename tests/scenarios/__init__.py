"""Golden scenarios: commands and the plans expected of them, as text."""
