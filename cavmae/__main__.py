"""`python -m cavmae`: the same as the `cavmae` command."""

from cavmae.cli import main

main()
