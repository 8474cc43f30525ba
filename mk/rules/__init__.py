"""The generator of make's rules: the standard library only, since it runs before anything is installed."""
