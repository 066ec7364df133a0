"""The command line: one small file per noun, lazily imported, never gRPC."""
