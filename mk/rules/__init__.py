"""The generator of make's rules. Standard library only: it runs before anything is installed."""
