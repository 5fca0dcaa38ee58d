"""Where text and speech to learn from come from: one module a source."""
