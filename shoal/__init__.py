"""The launcher of shoal, and the only top-level package its wheel installs."""
