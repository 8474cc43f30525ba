"""`python -m nuclei`, the same as the `nuclei` command."""

from nuclei.command import main

raise SystemExit(main())
