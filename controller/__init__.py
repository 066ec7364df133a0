"""The control plane: decides in pure code, acts in asyncio shells around it."""
