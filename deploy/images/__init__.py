"""The demo images, built from Debian packages by a small builder of our own."""
