"""Text to words to counts: the one tokeniser, what the terms of a text are, and how a vocabulary is chosen."""
