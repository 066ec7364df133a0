"""Tests: unit, properties, scenarios, contract, root and e2e."""
