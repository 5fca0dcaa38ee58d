"""Pure arithmetic: nothing here opens a file or knows of the command line."""
