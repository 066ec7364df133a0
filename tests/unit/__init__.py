"""Pure parts, one promise a test, milliseconds each."""
