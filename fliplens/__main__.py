"""`python -m fliplens` is the command `fliplens`."""

from fliplens.cli import main

raise SystemExit(main())
